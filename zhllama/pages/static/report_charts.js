function overview(data) {
  const first = data.tokenizers[0];
  const rows = data.languages.filter((row) => row.name !== "other");
  const best = rows.map((row) => Math.max(...data.tokenizers.map((t) => row.tokenizers[t.label].characters_per_token)));
  const head = [w("tokenizer"), w("size"), ...rows.map((row) => w("per_token", { kind: kindOf(row) })), w("gb"), w("big5"), w("embedding")];
  const cell = (at, value, best) => h(best ? "td.n.best" : "td.n", null, h("span.head", null, head[at]), value);
  const coverage = ([n, of]) => percent(n / of);
  const table = h("table.wide.stacked", null,
    h("thead", null, h("tr", null, head.map((name, at) => h(at ? "th.n" : "th", { scope: "col" }, name)))),
    h("tbody", null, data.tokenizers.map((t, place) => h("tr", null,
      h("th", { scope: "row" }, h("span.named", null, swatch(place), h("span", null, ...named(t.label))), place === 0 && data.tokenizers.length > 1 && h("small.tag", null, w("base"))),
      cell(1, number(t.size)),
      rows.map((row, at) => {
        const x = row.tokenizers[t.label].characters_per_token;
        return cell(2 + at, number(x, 3), x === best[at] && data.tokenizers.length > 1);
      }),
      cell(2 + rows.length, coverage(t.single_characters["gb2312-1"])), cell(3 + rows.length, coverage(t.single_characters["big5-1"])),
      cell(4 + rows.length, millions(t.embedding_parameters.untied))))));
  return h("section", { id: "overview", "aria-labelledby": "overview-title" },
    h("h1", { id: "overview-title" }, w("title")), h("p.lead", null, lead(data, first)),
    h("p.soft", null, w("read", { lines: number(sum(data.texts, "lines")), characters: number(sum(data.texts, "characters")) }),
      data.settings.sample_bytes && w("sampled", { mb: number(data.settings.sample_bytes / 1e6, 1) })),
    scroller(w("overview"), table),
    h("p.soft", null, w("embedding_explained", { hidden: number(data.settings.hidden) })));
}

const sum = (rows, key) => rows.reduce((total, row) => total + row[key], 0);

function lead(data, first) {
  const row = data.languages.find((r) => r.name === "simplified") ?? data.languages[0];
  const of = (t) => row.tokenizers[t.label];
  const best = data.tokenizers.reduce((a, b) => (of(b).characters_per_token > of(a).characters_per_token ? b : a));
  const x = number(of(best).characters_per_token, 3), n = number(of(best).context_characters);
  const values = { on: kindOf(row), base: first.label, x, n };
  if (data.tokenizers.length === 1) return w("lead_one", values);
  if (best === first) return w("lead_base", values);
  const y = of(first).characters_per_token, fewer = percent(1 - y / of(best).characters_per_token);
  return w("lead", { ...values, best: best.label, fewer, y: number(y, 3), m: number(of(first).context_characters) });
}

function charts(data, draw) {
  const measure = state.measure, measures = Object.keys(TEXTS).filter((key) => key.startsWith("measure."));
  const bars = (name) => (row) => {
    const values = data.tokenizers.map((t) => row.tokenizers[t.label][measure]);
    const most = Math.max(...values.map((v) => v ?? 0)) || 1;
    return h("article.card", null,
      h("h4", null, name(row)), h("p.soft", null, w("text_size", { lines: number(row.lines), characters: number(row.characters) })),
      h("table.bars", null, h("tbody", null, data.tokenizers.map((t, place) => h("tr", null,
        h("th", { scope: "row", title: t.label }, ...named(t.label)),
        h("td.track", { "aria-hidden": "true" }, h("i", { style: { width: `${(100 * (values[place] ?? 0)) / most}%`, background: colour(place) } })),
        h("td.value", null, formatted(measure, values[place])))))));
  };
  return section("charts", w("charts"),
    h("div.controls", null,
      pick(w("measure"), measures.map((key) => [key.slice(8), w(key)]), measure, (value) => { state.measure = value; draw("charts"); }),
      h("span.soft", null, w(`better.${measure}`))),
    h("h3", null, w("by_language")), h("div.cards", null, data.languages.map(bars(kindOf))),
    h("h3", null, w("by_text")), h("div.cards", null, data.texts.map(bars((row) => row.name))));
}

// In this order: an object would put its whole numbers first.
const LENGTHS = ["part", "1", "2", "3", "4", "5-8", "9+"];

function lengths(data, draw) {
  const rows = [...data.languages, ...data.texts], row = rows[state.row], classes = LENGTHS;
  const name = (key) => (key === "part" ? w("part") : w("characters", { n: key }));
  return section("lengths", w("lengths"), h("p.soft", null, w("lengths_explained")),
    h("div.controls", null, pick(w("text"), rows.map((r, at) => [at, at < data.languages.length ? kindOf(r) : r.name]), state.row, (value) => { state.row = Number(value); draw("lengths"); })),
    h("ul.legend", { "aria-hidden": "true" }, classes.map((key, at) => h("li", null, h("i.swatch", { style: { background: `var(--l${at})` } }), name(key)))),
    h("table.stacks", null, h("tbody", null, data.tokenizers.map((t) => {
      const shares = row.tokenizers[t.label].lengths;
      const spoken = classes.filter((key) => shares[key] > 0).map((key) => `${name(key)} ${percent(shares[key])}`).join(", ");
      return h("tr", null, h("th", { scope: "row", title: t.label }, ...named(t.label)),
        h("td", null, h("div.stack", { role: "img", "aria-label": spoken }, classes.map((key, at) => shares[key] > 0 &&
          h(`i.l${at}`, { style: { width: `${100 * shares[key]}%` }, title: `${name(key)}  ${percent(shares[key])}` }, shares[key] >= 0.09 && number(100 * shares[key]) + "%")))));
    }))));
}
