// The list draws only the rows in view; their pages are fetched when they come into view, and few are kept.
const HEIGHT = 72, HIGHEST = 8e6, PAGE = 50, KEPT = 40;  // pixels of a row and of the track, rows of a page, pages
const pages = new Map();  // number of a page -> its rows
const loading = new Set();
const MARKS = { keep: "✓", drop: "✗", tie: "=" };

function clearList() {
  pages.clear();
  drawList();
}

async function loadPage(at) {
  if (pages.has(at)) return pages.get(at);
  const version = state.version;
  const { rows } = await ask("/api/rows", { ...state.query, version, start: at * PAGE, count: PAGE });
  if (version !== state.version) return rows;
  pages.set(at, rows);
  if (pages.size > KEPT) pages.delete(pages.keys().next().value);
  return rows;
}

const numberAt = async (position) => (await loadPage(Math.floor(position / PAGE)))[position % PAGE]?.number;
const itemAt = (position) => pages.get(Math.floor(position / PAGE))?.[position % PAGE];

// A browser cannot draw a track of any height: beyond HIGHEST pixels a step of the scroll bar is several rows.
function inView() {
  const list = by("list"), rows = list.clientHeight / HEIGHT, track = Math.min(state.total * HEIGHT, HIGHEST);
  const scaled = state.total * HEIGHT > HIGHEST;
  const first = scaled ? (list.scrollTop / (track - list.clientHeight)) * (state.total - rows) : list.scrollTop / HEIGHT;
  return { list, rows, track, scaled, first: Math.max(0, Math.min(first, state.total)) };
}

function drawList() {
  const { list, rows, track, scaled, first } = inView();
  const begin = Math.max(0, Math.floor(first) - 2), end = Math.min(state.total, Math.ceil(first + rows) + 2);
  const items = [];
  for (let position = begin; position < end; position++) {
    const top = scaled ? list.scrollTop + (position - first) * HEIGHT : position * HEIGHT;
    items.push(listItem(position, top));
  }
  const missing = new Set(items.map((_, at) => Math.floor((begin + at) / PAGE)).filter((at) => !pages.has(at) && !loading.has(at)));
  for (const at of missing) {
    if (loading.size > 2) break;
    loading.add(at);
    loadPage(at).catch(complain).finally(() => { loading.delete(at); requestAnimationFrame(drawList); });
  }
  list.setAttribute("aria-label", w("list"));
  list.setAttribute("aria-activedescendant", `item-${state.position}`);
  const area = list.querySelector(".track") ?? list.appendChild(h("div.track"));  // kept, so that the scroll bar stays
  area.style.height = `${track}px`;
  area.replaceChildren(...items, ...(state.total || !state.summary?.done ? [] : [h("p.soft.empty", null, w("nothing"))]));
}

function listItem(position, top) {
  const row = itemAt(position), chosen = position === state.position;
  const attributes = { id: `item-${position}`, role: "option", "aria-selected": String(chosen), style: { top: `${top}px`, height: `${HEIGHT}px` },
    onclick: () => { if (state.view === "list" || narrow()) setView(narrow() ? "single" : "split"); inOrder(() => show(position)); } };
  if (!row) return h("div.item.waiting", attributes, h("span.soft", null, "…"));
  const tags = [row.reason && labelled("reason", row.reason), row.kind === "broken" && w("kind.broken"), ...row.flags.map((flag) => labelled("flag", flag))].filter(Boolean);
  return h(chosen ? "div.item.chosen" : "div.item", attributes,
    h(`span.mark.${row.verdict ?? "none"}`, { title: row.verdict ? verdictText(row, row.verdict) : w("verdict.none") }, mark(row)),
    h("span.title", null, found(row.text)),
    h("span.under", null, h("span", null, number(row.number + 1)), h("span", null, w("characters", { n: number(row.characters) })),
      row.edited && h("b", null, w("edited")), row.commented && h("b", null, w("comment")), tags.map((tag) => h("span.tag", null, tag))),
    h("span.answer", null, found(row.answer)));
}

const mark = (row) => (row.verdict == null ? "" : MARKS[row.verdict] ?? "★");

// A text with what is searched for marked.
function found(text) {
  const terms = (state.query.q ?? "").split(/\s+/).filter(Boolean);
  if (!terms.length) return text;
  const pattern = new RegExp(`(${terms.map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "gi");
  return text.split(pattern).map((part, at) => (at % 2 ? h("mark", null, part) : part));
}

// Scroll the list so that a position is in view.
function reveal(position) {
  const { list, rows, track, scaled, first } = inView();
  if (position >= first && position + 1 <= first + rows) return;
  const wanted = Math.max(0, position - Math.floor(rows / 2));
  list.scrollTop = scaled ? (wanted / (state.total - rows)) * (track - list.clientHeight) : wanted * HEIGHT;
}

function updateItem(row) {
  const item = itemAt(state.position);
  if (item?.number === row.number)
    Object.assign(item, { verdict: row.mine?.verdict ?? null, edited: Object.keys(row.mine?.edit ?? {}).length > 0, commented: !!row.mine?.comment });
  drawList();
}
