// The page: keys, the view, and what is drawn when.
const narrow = () => matchMedia("(max-width: 60rem)").matches;

function setView(view) {
  state.view = view;
  by("panes").dataset.view = view;
  remember();
  requestAnimationFrame(() => { reveal(state.position); drawList(); });
}

// Between list and single row; on a wide screen both are shown first.
function switchView() {
  if (narrow()) setView(state.view === "single" ? "list" : "single");
  else setView({ split: "single", single: "list", list: "split" }[state.view]);
}

function drawAllParts() {
  drawList();
  drawRow();
  drawFilters();
}

async function refresh() {
  state.summary = await ask("/api/summary");
  state.summary.faults.forEach((fault, at) => notice(`fault-${at}`, fault));
  for (const one of state.summary.reviewers) notice(`lost-${one.name}`, one.lost ? w("lost", { name: one.name, n: number(one.lost) }) : null);
  drawFilters();
}

let refreshing = null;
function refreshSoon() {
  clearTimeout(refreshing);
  refreshing = setTimeout(() => refresh().catch(complain), 800);
}

// While rows are read or compared, the selection grows.
let following = false;
async function follow() {
  const busy = () => !state.summary.done || (comparing() && (state.summary.nearness ?? 0) < state.summary.rows);
  if (following) return;
  following = true;
  try {
    while (busy()) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      await refresh();
      if (!state.editing) await inOrder(grown);
    }
  } finally {
    following = false;
  }
}
const startFollowing = () => { follow().catch(complain); };
const comparing = () => Boolean(state.query.near) || state.query.sort === "nearest";

async function grown() {
  const row = state.row?.number ?? null, position = await select(row);
  if (row === null || (comparing() && !by("row").contains(document.activeElement))) return show(position ?? 0);
  state.position = position ?? 0;
  drawList();
  drawHead();
}

// Only the count above the row: its texts and a comment that is being written stay.
function drawHead() {
  drawProgress();
  const head = by("row").querySelector(".row-head");
  if (head) head.replaceWith(rowHead(state.row));
}

const ACTIONS = {
  a: () => judge("keep"), d: () => judge("drop"), j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
  n: nextUndecided, e: startEdit, u: undo, l: switchView, s: openAgreement, 0: () => judge("tie"), "?": openKeys,
  c: () => by("comment")?.focus(), "/": () => by("search")?.focus(),
};
for (let place = 0; place < 9; place++) ACTIONS[place + 1] = () => { const answer = state.row?.answers[place]; if (answer) judge(answer.choice); };

// With a Chinese input method a letter comes as "Process": then its place on the keyboard counts.
const keyOf = (event) => (event.key in ACTIONS ? event.key : /^Key[A-Z]$/.test(event.code) ? event.code[3].toLowerCase() : event.key);

document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, textarea, select");
  if (event.target.matches("textarea[data-path]") && !event.isComposing) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); saveEdit(); }
    if (event.key === "Escape") { event.preventDefault(); cancelEdit(); }
  }
  if (field || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const action = ACTIONS[keyOf(event)];
  if (!action || (state.editing && event.key !== "Escape")) return;
  event.preventDefault();
  action();
});

let drawing = false;
by("list").addEventListener("scroll", () => {
  if (!drawing) requestAnimationFrame(() => { drawing = false; drawList(); });
  drawing = true;
});
addEventListener("resize", () => drawList());
by("open-list").addEventListener("click", switchView);
by("open-agreement").addEventListener("click", openAgreement);
by("open-keys").addEventListener("click", openKeys);
document.documentElement.addEventListener("languagechange", () => {
  drawAllParts();
  drawFilters(true);
  drawKeys();
  drawAgreement();
});

inOrder(async () => {
  const remembered = recall();
  setView(narrow() && state.view === "split" ? "single" : state.view);
  await refresh();
  let position = await select(remembered);
  if (remembered === null) position = (await ask("/api/next", { ...state.query, version: state.version })).position;
  await show(position ?? 0);
  startFollowing();
});
