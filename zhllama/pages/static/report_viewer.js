const LONGEST = 2000;  // characters of typed text

function viewer(data, models) {
  const cuts = h("div", { id: "cuts", "aria-live": "polite" });
  const box = h("textarea", { id: "typed", rows: "3", maxlength: LONGEST, spellcheck: "false", autocapitalize: "off",
    oninput: (event) => { state.text = event.target.value; select.value = place(state.text); show(); } });
  box.value = state.text;
  const place = (text) => String(data.sentences.findIndex((s) => s.text === text));
  const select = h("select", { id: "sentence", onchange: () => {
    const chosen = data.sentences[select.value];
    if (chosen) { box.value = state.text = chosen.text; show(); } else box.focus();
  } }, grouped(data.sentences), h("option", { value: "-1" }, w("own")));
  select.value = place(state.text);
  const ids = h("input", { type: "checkbox", id: "ids", checked: state.ids, onchange: () => { state.ids = ids.checked; show(); } });
  const show = () => cuts.replaceChildren(...data.tokenizers.map((t, at) => cutOf(data, models, at, state.text)));
  show();
  return section("viewer", w("viewer"), h("p.soft", null, w("viewer_explained")),
    h("div.controls", null, h("label.field.wide", null, h("span", null, w("choose")), select),
      h("label.check", null, ids, w("ids"))),
    h("label.field.block", null, h("span", null, w("type")), box), cuts);
}

function grouped(sentences) {
  const groups = new Map();
  sentences.forEach((s, at) => groups.set(s.origin, [...(groups.get(s.origin) ?? []), at]));
  return [...groups].map(([origin, places]) => h("optgroup", { label: ["given", "sample"].includes(origin) ? w(origin) : origin.slice(2) },
    places.map((at) => h("option", { value: at }, shortened(sentences[at].text)))));
}

const shortened = (text) => (text.length > 60 ? `${text.slice(0, 58)}…` : text).replaceAll("\n", " ↵ ");

function cutOf(data, models, at, text) {
  const known = data.sentences.find((s) => s.text === text);
  const cut = known ? known.cuts[at] : models[at]?.cut(text);
  const characters = [...text].length;
  return h("div.cut", { "data-tokenizer": data.tokenizers[at].label },
    h("div.who", null, swatch(at), h("b", null, data.tokenizers[at].label),
      cut && h("span.count", null, w("tokens", { n: number(cut.length) }), cut.length > 0 && ` · ${w("ratio", { x: number(characters / cut.length, 2) })}`),
      models[at] && h("small.tag", null, w("live"))),
    cut ? h("p.tokens", { lang: "zh-Hans" }, cut.map(token)) : h("p.soft", null, w("not_live")));
}

function token([id, shown], place) {
  const bytes = Array.isArray(shown), text = bytes ? shown[0] : shown;
  const inside = bytes ? text.replace(/(..)(?=.)/g, "$1 ") : visible(text);
  return h(`span.t.t${place % 6}${bytes ? ".byte" : ""}`, { "data-id": id, title: `${id}  ${bytes ? text : JSON.stringify(text)}` },
    inside, state.ids && h("sub", null, String(id)));
}

// Spaces and ends of lines are shown by a sign that stands for them.
const SIGNS = { " ": "▁", "\n": "↵\n", "\t": "⇥", "\u3000": "□" };
const visible = (text) => [...text.matchAll(/[ \n\t\u3000]|[^ \n\t\u3000]+/g)].map(([part]) => (SIGNS[part] ? h("span.sign", null, SIGNS[part]) : part));
