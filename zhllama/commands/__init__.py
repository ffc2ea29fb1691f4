"""The thin edge: one short function a command, which reads options, calls the core, and draws what came back."""
