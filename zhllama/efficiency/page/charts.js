function overview(data) {
  const w = words(), first = data.tokenizers[0];
  const rows = data.languages.filter((row) => row.name !== "other");
  const best = rows.map((row) => Math.max(...data.tokenizers.map((t) => row.tokenizers[t.label].characters_per_token)));
  const head = [w.tokenizer, w.size, ...rows.map((row) => [kindOf(row), h("small", null, w.perToken)]), w.gb, w.big5, w.embedding];
  const coverage = ([n, of]) => h("td", { title: `${w.single}: ${number(n)} / ${number(of)}` }, percent(n / of));
  const table = h("table.figures", null,
    h("thead", null, h("tr", null, head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, data.tokenizers.map((t, place) => h("tr", null,
      h("th", { scope: "row" }, swatch(place), t.label, place === 0 && data.tokenizers.length > 1 && h("small.tag", null, w.base)),
      h("td", null, number(t.size)),
      rows.map((row, at) => {
        const x = row.tokenizers[t.label].characters_per_token;
        return h(x === best[at] && data.tokenizers.length > 1 ? "td.best" : "td", null, number(x, 3));
      }),
      coverage(t.single_characters["gb2312-1"]), coverage(t.single_characters["big5-1"]),
      h("td", { title: w.embeddingTold(number(data.settings.hidden)) }, millions(t.embedding_parameters.untied))))));
  return h("section", { id: "overview", "aria-labelledby": "overview-title" },
    h("h1", { id: "overview-title" }, w.title), h("p.lead", null, lead(data, first)),
    h("p.soft", null, w.read(number(sum(data.texts, "lines")), number(sum(data.texts, "characters"))),
      data.settings.sample_bytes && w.sampled(number(data.settings.sample_bytes / 1e6, 1))),
    scroller(w.overview, table));
}

const sum = (rows, key) => rows.reduce((total, row) => total + row[key], 0);

function lead(data, first) {
  const w = words(), row = data.languages.find((r) => r.name === "simplified") ?? data.languages[0];
  const of = (t) => row.tokenizers[t.label];
  const best = data.tokenizers.reduce((a, b) => (of(b).characters_per_token > of(a).characters_per_token ? b : a));
  const x = number(of(best).characters_per_token, 3), n = number(of(best).context_characters);
  if (data.tokenizers.length === 1) return w.leadOne(kindOf(row), first.label, x, n);
  if (best === first) return w.leadBase(kindOf(row), first.label, x);
  const times = number(of(best).characters_per_token / of(first).characters_per_token, 2);
  return w.lead(kindOf(row), best.label, x, first.label, times, n, number(of(first).context_characters));
}

function charts(data, draw) {
  const w = words(), measure = state.measure;
  const [, better] = w.measures[measure];
  const bars = (name) => (row) => {
    const values = data.tokenizers.map((t) => row.tokenizers[t.label][measure]);
    const most = Math.max(...values.map((v) => v ?? 0)) || 1;
    return h("article.card", null,
      h("h4", null, name(row)), h("p.soft", null, w.textTold(number(row.lines), number(row.characters))),
      h("table.bars", null, h("tbody", null, data.tokenizers.map((t, place) => h("tr", null,
        h("th", { scope: "row", title: t.label }, t.label),
        h("td.track", { "aria-hidden": "true" }, h("i", { style: { width: `${(100 * (values[place] ?? 0)) / most}%`, background: colour(place) } })),
        h("td.value", null, told(measure, values[place])))))));
  };
  return section("charts", w.charts,
    h("div.controls", null,
      pick(w.measure, Object.entries(w.measures).map(([key, [name]]) => [key, name]), measure, (value) => { state.measure = value; draw("charts"); }),
      h("span.soft", null, better)),
    h("h3", null, w.byLanguage), h("div.cards", null, data.languages.map(bars(kindOf))),
    h("h3", null, w.byText), h("div.cards", null, data.texts.map(bars((row) => row.name))));
}

// In this order: an object would put its whole numbers first.
const LENGTHS = ["part", "1", "2", "3", "4", "5-8", "9+"];

function lengths(data, draw) {
  const w = words(), rows = [...data.languages, ...data.texts], row = rows[state.row], classes = LENGTHS;
  const name = (key) => (key === "part" ? w.part : w.characters(key));
  return section("lengths", w.lengths, h("p.soft", null, w.lengthsTold),
    h("div.controls", null, pick(w.text, rows.map((r, at) => [at, at < data.languages.length ? kindOf(r) : r.name]), state.row, (value) => { state.row = Number(value); draw("lengths"); })),
    h("ul.legend", { "aria-hidden": "true" }, classes.map((key, at) => h("li", null, h("i.swatch", { style: { background: `var(--l${at})` } }), name(key)))),
    h("table.stacks", null, h("tbody", null, data.tokenizers.map((t) => {
      const shares = row.tokenizers[t.label].lengths;
      const spoken = classes.filter((key) => shares[key] > 0).map((key) => `${name(key)} ${percent(shares[key])}`).join(", ");
      return h("tr", null, h("th", { scope: "row", title: t.label }, t.label),
        h("td", null, h("div.stack", { role: "img", "aria-label": spoken }, classes.map((key, at) => shares[key] > 0 &&
          h(`i.l${at}`, { style: { width: `${100 * shares[key]}%` }, title: `${name(key)}  ${percent(shares[key])}` }, shares[key] >= 0.09 && number(100 * shares[key]) + "%")))));
    }))));
}
