// The filters above the list. They offer what the data has, with counts.
const STATUSES = ["undecided", "decided", "keep", "drop", "choice", "edited", "commented", "disagreed"];
const NEAR = ["0.5", "0.6", "0.7", "0.8", "0.9", "1"];
let drawn = "";  // what the filters were drawn from

function apply(changes) {
  state.query = Object.fromEntries(Object.entries({ ...state.query, ...changes }).filter(([, value]) => value !== "" && value != null));
  return inOrder(async () => {
    const position = await select(state.row?.number ?? null);
    await show(position ?? 0);
    drawFilters(true);
    await refresh();
    startFollowing();
  });
}

function choice(name, label, options) {
  const all = [["", w("status.all")], ...options];
  return pickOne(name, label, all);
}

const pickOne = (name, label, options) => h("label.field", null, h("span", null, label),
  h("select", { "data-filter": name, onpointerdown: (event) => { event.target.byPointer = true; },
    onkeydown: (event) => { event.target.byPointer = false; if (event.key === "Escape") event.target.blur(); },
    onchange: (event) => { if (event.target.byPointer) event.target.blur(); apply({ [name]: event.target.value }); } },  // then letters are keys again
    options.map(([value, text]) => h("option", { value, selected: value === (state.query[name] ?? "") }, text))));

const counted = (group, counts) => Object.entries(counts).map(([name, n]) => [name, `${labelled(group, name)} (${number(n)})`]);

function count(name, label) {
  return h("label.field", null, h("span", null, label), h("input.short", { "data-filter": name, type: "text", inputmode: "numeric", value: state.query[name] ?? "",
    onchange: (event) => { const digits = event.target.value.replace(/\D/g, ""); event.target.value = digits; apply({ [name]: digits }); } }));
}

// Draw the filters, unless nothing has changed or one of them is in use.
function drawFilters(force = false) {
  const box = by("filters"), summary = state.summary;
  if (!summary) return;
  const source = JSON.stringify([document.documentElement.lang, state.query, summary.groups, summary.kinds, summary.reasons, summary.flags, summary.categories, summary.models]);
  drawProgress();
  if (source === drawn || (!force && box.contains(document.activeElement))) return;
  drawn = source;
  const focused = document.activeElement?.dataset?.filter, open = box.querySelector("details")?.open;
  const several = (counts) => Object.keys(counts).length > 1;
  const more = [
    several(summary.groups) && choice("group", w("group"), counted("group", summary.groups)),
    several(summary.kinds) && choice("kind", w("kind"), Object.entries(summary.kinds).map(([name, n]) => [name, `${w(`kind.${name}`)} (${number(n)})`])),
    Object.keys(summary.reasons).length > 0 && choice("reason", w("reason"), counted("reason", summary.reasons)),
    Object.keys(summary.flags).length > 0 && choice("flag", w("flag"), counted("flag", summary.flags)),
    several(summary.categories) && choice("category", w("category"), counted("kind", summary.categories)),
    several(summary.models) && choice("model", w("model"), counted("model", summary.models)),
    count("shortest", w("shortest")), count("longest", w("longest")),
    pickOne("near", w("near"), [["", w("near.any")], ...NEAR.map((n) => [n, w("near.least", { n })])]),
  ];
  const used = QUERY.filter((name) => !["q", "status", "sort"].includes(name) && state.query[name]).length;
  box.replaceChildren(
    h("div.controls", null,
      h("input", { id: "search", "data-filter": "q", type: "search", placeholder: w("search"), "aria-label": w("search"), value: state.query.q ?? "",
        onkeydown: (event) => { if (event.key === "Enter" && !event.isComposing) { apply({ q: event.target.value }); event.target.blur(); } if (event.key === "Escape") event.target.blur(); },
        onchange: (event) => { if (event.target.value !== (state.query.q ?? "")) apply({ q: event.target.value }); } }),
      choice("status", w("status"), STATUSES.map((name) => [name, w(`status.${name}`)])),
      pickOne("sort", w("sort"), [["", w("sort.file")], ["shortest", w("sort.shortest")], ["longest", w("sort.longest")], ["nearest", w("sort.nearest")]])),
    h("details", { open: !!open }, h("summary", null, used ? w("more_filters_n", { n: used }) : w("more_filters")),
      h("div.controls", null, more, h("button", { type: "button", onclick: () => apply(Object.fromEntries(QUERY.map((name) => [name, ""]))) }, w("clear")))),
    h("span.soft", { id: "progress" }));
  drawProgress();
  if (focused) box.querySelector(`[data-filter="${focused}"]`)?.focus();
}

function drawProgress() {
  const summary = state.summary, box = by("progress");
  if (!box || !summary) return;
  const mine = summary.reviewers.find((one) => one.name === summary.reviewer), all = number(summary.rows);
  const shown = state.total === summary.rows ? w("count", { n: all }) : w("count_of", { n: number(state.total), all });
  const parts = [shown, w("progress", { n: number(mine?.decided ?? 0) })];
  if (!summary.done) parts.push(w("reading", { n: all }));
  if (summary.nearness !== null && summary.nearness < summary.rows) parts.push(w("comparing", { n: number(summary.nearness), all }));
  box.textContent = parts.join(" · ");
}
