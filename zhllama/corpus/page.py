"""The HTML page of a cleaning run: counts, lengths and examples of each step."""

from jinja2 import Environment

from zhllama.corpus.stats import CleaningStats, StepStats

WHY = {
    "decode": "Files and documents that are no text, or not in the encoding that they claim or seem to have.",
    "broken": "Text that was decoded wrongly before: replacement characters, 锟斤拷.",
    "unicode": "NFC, one kind of line end, no unseen characters.",
    "urls": "Documents from addresses or sites on the user's list.",
    "html": "Tags, scripts, styles, comments and entities.",
    "markdown": "Images, addresses of links, bold marks, headings and rules.",
    "width": "Full-width letters and digits become ASCII.",
    "boilerplate": "Short lines of navigation, copyright, sharing.",
    "convert": "Between Traditional and Simplified by OpenCC.",
    "mask": "E-mail addresses, phone numbers and identity numbers.",
    "tidy": "Empty lines and spaces that the edits left behind.",
    "length": "Shorter or longer than wanted.",
    "language": "Too few letters of the languages wanted.",
    "script": "In the other Chinese script.",
    "links": "More than half of it addresses.",
    "repetition": "Lines, or runs of 10 characters, said again and again.",
    "words": "Several words of the user's lists.",
    "exact": "The same text as another document, character for character.",
    "near": "Nearly the text of another document: MinHash over runs of 5 characters.",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Cleaning of {{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fcfcfb; --faint: #6b7280; --line: #e3e3df; --bar: #3b7dbf; --gone: #c2553d; --soft: #f3f3ef }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --paper: #17191c; --faint: #9aa0a8; --line: #33363b; --bar: #6aa5df; --gone: #e2826b; --soft: #202327 } }
body { font: 16px/1.6 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; line-height: 1.3 } h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem } p { margin: .3rem 0 }
.faint { color: var(--faint) } .scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums } caption { text-align: left; color: var(--faint) }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top } th:first-child, td:first-child { text-align: left }
td.text { text-align: left; white-space: pre-wrap; overflow-wrap: anywhere; width: 50% } th.text { text-align: left }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .1rem .6rem; align-items: center; max-width: 36rem; font-variant-numeric: tabular-nums }
.bars i { display: block; height: .7rem; background: var(--bar); border-radius: 2px; min-width: 1px } .gone i { background: var(--gone) }
a { color: inherit }
</style></head><body>
<h1>Cleaning of {{ title }}</h1>
<p>{{ n(b.documents_in) }} documents in = {{ n(b.documents_out) }} out + {{ n(b.rejected) }} rejected.
{{ n(b.characters_in) }} characters in, {{ n(b.characters_out) }} out.</p>
{% macro bars(lengths, class) %}<div class="bars {{ class }}">{% for low, count in lengths.items() %}
<span>from {{ n(low) }}</span><i style="width: {{ '%.1f' % (100 * count / biggest(lengths)) }}%"></i><span>{{ n(count) }}</span>{% endfor %}
</div>{% endmacro %}
<div class="scroll"><table><caption>Steps in order</caption>
<tr><th>step</th><th>documents</th><th>changed</th><th>dropped</th><th>of those that came</th></tr>
{% for s in b.steps %}<tr><td><a href="#{{ s.name }}">{{ s.name }}</a></td><td>{{ n(s.documents) }}</td>
<td>{{ n(s.changed) if not s.drops else "" }}</td><td>{{ n(s.dropped) if s.drops else "" }}</td>
<td>{{ share(s) }}</td></tr>
{% endfor %}</table></div>
<h2>Lengths of what went out</h2><p class="faint">Documents by characters.</p>
{{ bars(b.lengths, "kept") if b.lengths else "Nothing went out." }}
{% for s in b.steps %}
<h2 id="{{ s.name }}">{{ s.name }}</h2><p class="faint">{{ why.get(s.name, "") }}</p>
{% if s.drops and s.dropped %}
<p>{% for reason, count in s.reasons.items() %}{{ reason }}: {{ n(count) }}{{ "; " if not loop.last else "." }}{% endfor %}</p>
{{ bars(s.lengths, "gone") }}
<div class="scroll"><table><tr><th>reason</th><th class="text">document</th><th class="text">begins with</th></tr>
{% for reason, id, text in s.examples %}<tr><td>{{ reason }}</td><td class="text">{{ id }}</td><td class="text">{{ text }}</td></tr>
{% endfor %}</table></div>
{% elif s.drops %}<p>Dropped nothing.</p>
{% elif s.examples %}<p>Changed {{ n(s.changed) }} of {{ n(s.documents) }}.</p>
<div class="scroll"><table><tr><th class="text">before</th><th class="text">after</th></tr>
{% for before, after in s.examples %}<tr><td class="text">{{ before }}</td><td class="text">{{ after }}</td></tr>
{% endfor %}</table></div>
{% else %}<p>Changed nothing.</p>{% endif %}
{% endfor %}
</body></html>
"""


def page(books: CleaningStats, title: str) -> str:
    """The page as HTML. Every text on it comes from strangers and is escaped; nothing on it can run or be fetched."""
    template = Environment(autoescape=True).from_string(_PAGE)
    return template.render(
        b=books,
        title=title,
        why=WHY,
        n=lambda number: f"{number:,}",
        share=_share,
        biggest=lambda lengths: max(lengths.values()),
    )


def _share(step: StepStats) -> str:
    touched = step.dropped if step.drops else step.changed
    return f"{touched / step.documents:.2%}" if step.documents and touched else ""
