"""Chinese instruction data from a language model: prompt it, parse its replies, filter the tasks, remove duplicates."""
