function pieces(data, models, draw) {
  const s = state.pieces, chosen = data.added[s.at];
  const label = data.tokenizers[chosen.tokenizer].label, base = data.tokenizers[chosen.on].label;
  const texts = chosen.pieces ?? models[chosen.tokenizer].pieces.slice(chosen.from).map((p) => p.replaceAll("▁", " "));
  const all = texts.map((shown, at) => {
    const bytes = Array.isArray(shown), text = bytes ? shown[0] : shown;
    return { text, bytes, id: chosen.from + at, length: bytes ? 0 : [...text].length, count: chosen.counts[at],
      documents: chosen.documents?.[at] ?? 0, domain: chosen.domains?.[at] ?? "",
      suspicious: (chosen.suspicious[at] ?? []).map((flag) => w(`suspicious.${flag}`)).join(w("comma")) };
  });
  const columns = ["piece", "id", "length", ...(chosen.documents ? ["documents", "domain"] : []), "suspicious", "count"];
  const marks = (s.marks[chosen.tokenizer] ??= new Set());
  const list = h("tbody", { id: "piece-rows" }), count = h("span.soft", { role: "status" });
  const more = h("button.more", { type: "button", onclick: () => { s.shown += PIECES; show(); } }, w("more", { n: PIECES }));
  const head = h("tr");
  const compare = (a, b) => (typeof a[s.sort] === "string" ? (a[s.sort] < b[s.sort] ? -1 : a[s.sort] > b[s.sort] ? 1 : 0) : a[s.sort] - b[s.sort]);
  if (!columns.includes(s.sort === "text" ? "piece" : s.sort)) s.sort = "id";
  const show = () => {
    const query = s.query.replaceAll("▁", " ").toLowerCase();
    const found = all.filter((p) => p.text.toLowerCase().includes(query) && !(s.unseen && p.count) && !(s.suspect && !p.suspicious) && !(s.marked && !marks.has(p.text)));
    found.sort((a, b) => (s.down ? compare(b, a) : compare(a, b)) || a.id - b.id);
    count.textContent = w("found", { n: number(found.length) });
    list.replaceChildren(...(found.length ? found.slice(0, s.shown).map((p) => line(p, columns, marks, refresh)) : [h("tr", null, h("td.soft", { colspan: String(columns.length) }, w("none")))]));
    more.hidden = found.length <= s.shown;
    head.replaceChildren(...columns.map((column) => {
      const key = column === "piece" ? "text" : column;
      return h("th", { scope: "col", "aria-sort": s.sort === key ? (s.down ? "descending" : "ascending") : "none" },
        h("button", { type: "button", "data-sort": column, onclick: () => sortBy(key, column) }, w(`column.${column}`), h("span.arrow", { "aria-hidden": "true" }, s.sort === key ? (s.down ? "↓" : "↑") : "")));
    }));
  };
  const sortBy = (key, column) => {
    s.down = s.sort === key ? !s.down : ["length", "count", "documents", "suspicious"].includes(key);
    s.sort = key;
    show();
    head.querySelector(`[data-sort=${column}]`).focus();
  };
  const change = (key, value) => { s[key] = value; s.shown = PIECES; show(); };
  const check = (key) => h("label.check", null, h("input", { type: "checkbox", id: `piece-${key}`, checked: s[key], onchange: (event) => change(key, event.target.checked) }), w(key));
  const [excluded, refresh] = excludeList(all, marks);
  show();
  return section("pieces", w("pieces"),
    h("p.soft", null, w("pieces_explained", { label, base, n: number(all.length) })),
    h("div.controls", null,
      data.added.length > 1 && pick(w("tokenizer"), data.added.map((a, at) => [at, data.tokenizers[a.tokenizer].label]), s.at, (value) => { s.at = Number(value); s.shown = PIECES; draw("pieces"); }),
      h("label.field", null, h("span", null, w("search")), h("input", { type: "search", id: "piece-search", value: s.query, autocomplete: "off", oninput: (event) => change("query", event.target.value) })),
      check("unseen"), check("suspect"), check("marked"), count),
    scroller(w("pieces"), h("table.pieces", null, h("thead", null, head), list)), more, excluded);
}

const line = (piece, columns, marks, refresh) => h("tr", null,
  h("td", { lang: "zh-Hans" }, h("label.check", null,
    h("input", { type: "checkbox", disabled: piece.bytes, checked: marks.has(piece.text), "aria-label": w("leave_out", { piece: piece.text }),
      onchange: (event) => { marks[event.target.checked ? "add" : "delete"](piece.text); refresh(); } }),
    piece.bytes ? h("span.t.byte", null, piece.text.replace(/(..)(?=.)/g, "$1 ")) : h("span", null, visible(piece.text)))),
  columns.slice(1).map((column) => h("td", { "data-head": w(`column.${column}`) }, typeof piece[column] === "string" ? piece[column]
    : column === "length" && piece.bytes ? "—" : column === "id" ? String(piece.id) : number(piece[column]))));

// The marked pieces as the file that `merge-vocab --exclude` reads, and the function that brings it up to date.
function excludeList(all, marks) {
  const box = h("textarea", { id: "excluded", rows: "4", readonly: true, spellcheck: "false", "aria-label": w("excluded") });
  const save = h("a.button", { id: "save-excluded", download: "exclude.txt" }, w("save"));
  const copied = h("span.soft", { "aria-live": "polite" }), title = h("h3");
  const copy = h("button", { type: "button", id: "copy-excluded", onclick: () => {
    box.select();
    const done = () => { copied.textContent = w("copied"); };
    (navigator.clipboard?.writeText(box.value) ?? Promise.reject()).then(done, () => { if (document.execCommand("copy")) done(); });
  } }, w("copy"));
  const part = h("div.excluded", null, title, h("p.soft", null, w("excluded_explained")), box, h("div.controls", null, copy, save, copied));
  const refresh = () => {
    const texts = all.filter((p) => marks.has(p.text)).map((p) => p.text.replaceAll(" ", "▁"));
    box.value = texts.map((text) => `${text}\n`).join("");
    save.href = `data:text/plain;charset=utf-8,${encodeURIComponent(box.value)}`;
    title.textContent = `${w("excluded")} (${number(texts.length)})`;
    copied.textContent = "";
    part.hidden = !texts.length;
  };
  refresh();
  return [part, refresh];
}
