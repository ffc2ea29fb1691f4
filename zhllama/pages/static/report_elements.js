const PIECES = 50;  // rows shown at first, and more at a time
const state = { measure: "characters_per_token", row: 0, text: "", ids: false,
  pieces: { at: 0, query: "", sort: "id", down: false, unseen: false, suspect: false, marked: false, marks: {}, shown: PIECES } };

const percent = (value) => (value > 0 && value < 0.0005 ? "<0.1%" : `${number(100 * value, 1)}%`);
const millions = (value) => `${number(value / 1e6, value < 1e8 ? 1 : 0)}M`;

const FORMATS = { tokens_against_base: (x) => number(x, 3), byte_share: percent, used_share: percent, single_coverage: percent,
  context_characters: (x) => number(x), training_cost: (x) => number(x, 3), serving_cost: (x) => number(x, 3) };
const formatted = (measure, value) => (value == null ? "—" : (FORMATS[measure] ?? ((x) => number(x, 3)))(value));
const kindOf = (row) => w(`kind.${row.name}`);

const colour = (place) => `var(--c${place % 10})`;
// A long name breaks behind its signs before it breaks inside a word.
const named = (label) => label.split(/(?<=[+/._-])/).flatMap((part) => [part, h("wbr")]).slice(0, -1);
const swatch = (place) => h("i.swatch", { style: { background: colour(place) }, "aria-hidden": "true" });

const pick = (label, options, chosen, change) =>
  h("label.field", null, h("span", null, label),
    h("select", { onchange: (event) => change(event.target.value) },
      options.map(([value, name]) => h("option", { value, selected: String(value) === String(chosen) }, name))));

const section = (id, title, ...children) => h("section", { id, "aria-labelledby": `${id}-title` },
  h("h2", { id: `${id}-title` }, title), children);

// A wide table scrolls by itself, by keyboard too.
const scroller = (label, table) => h("div.scroller", { tabindex: "0", role: "region", "aria-label": label }, table);
