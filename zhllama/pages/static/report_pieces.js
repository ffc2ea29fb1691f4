function pieces(data, models, draw) {
  const s = state.pieces, chosen = data.added[s.at];
  const label = data.tokenizers[chosen.tokenizer].label, base = data.tokenizers[chosen.on].label;
  const texts = chosen.pieces ?? models[chosen.tokenizer].pieces.slice(chosen.from).map((p) => p.replaceAll("▁", " "));
  const all = texts.map((shown, at) => {
    const bytes = Array.isArray(shown), text = bytes ? shown[0] : shown;
    return { text, bytes, id: chosen.from + at, length: bytes ? 0 : [...text].length, count: chosen.counts[at] };
  });
  const list = h("tbody", { id: "piece-rows" }), count = h("span.soft", { role: "status" });
  const more = h("button.more", { type: "button", onclick: () => { s.shown += PIECES; show(); } }, w("more", { n: PIECES }));
  const head = h("tr");
  const compare = (a, b) => (s.sort === "piece" ? (a.text < b.text ? -1 : a.text > b.text ? 1 : 0) : a[s.sort] - b[s.sort]);
  const show = () => {
    const query = s.query.replaceAll("▁", " ").toLowerCase();
    const found = all.filter((p) => p.text.toLowerCase().includes(query) && !(s.unseen && p.count));
    found.sort((a, b) => (s.down ? compare(b, a) : compare(a, b)) || a.id - b.id);
    count.textContent = w("found", { n: number(found.length) });
    list.replaceChildren(...(found.length ? found.slice(0, s.shown).map(line) : [h("tr", null, h("td.soft", { colspan: "4" }, w("none")))]));
    more.hidden = found.length <= s.shown;
    head.replaceChildren(...["piece", "id", "length", "count"].map((key) => h("th", { scope: "col", "aria-sort": s.sort === key ? (s.down ? "descending" : "ascending") : "none" },
      h("button", { type: "button", "data-sort": key, onclick: () => sortBy(key) }, w(`column.${key}`), h("span.arrow", { "aria-hidden": "true" }, s.sort === key ? (s.down ? "↓" : "↑") : "")))));
  };
  const sortBy = (key) => {
    s.down = s.sort === key ? !s.down : key === "length" || key === "count";
    s.sort = key;
    show();
    head.querySelector(`[data-sort=${key}]`).focus();
  };
  const change = (key, value) => { s[key] = value; s.shown = PIECES; show(); };
  show();
  const unseen = h("input", { type: "checkbox", checked: s.unseen, onchange: (event) => change("unseen", event.target.checked) });
  return section("pieces", w("pieces"),
    h("p.soft", null, w("pieces_explained", { label, base, n: number(all.length) })),
    h("div.controls", null,
      data.added.length > 1 && pick(w("tokenizer"), data.added.map((a, at) => [at, data.tokenizers[a.tokenizer].label]), s.at, (value) => { s.at = Number(value); s.shown = PIECES; draw("pieces"); }),
      h("label.field", null, h("span", null, w("search")), h("input", { type: "search", id: "piece-search", value: s.query, autocomplete: "off", oninput: (event) => change("query", event.target.value) })),
      h("label.check", null, unseen, w("unseen")), count),
    scroller(w("pieces"), h("table.pieces", null, h("thead", null, head), list)), more);
}

const line = (piece) => h("tr", null,
  h("td", { lang: "zh-Hans" }, piece.bytes ? h("span.t.byte", null, piece.text.replace(/(..)(?=.)/g, "$1 ")) : visible(piece.text)),
  h("td", null, String(piece.id)), h("td", null, piece.bytes ? "—" : String(piece.length)), h("td", null, number(piece.count)));
