// What the page knows, and its requests to the server. Decisions are sent one after another, in the order of the keys.
const QUERY = ["q", "status", "group", "kind", "reason", "flag", "category", "model", "shortest", "longest", "near", "sort"];
const page = JSON.parse(document.getElementById("data").textContent);
const state = { query: {}, version: 0, total: 0, position: 0, row: null, summary: null, editing: false, view: "split" };
const LETTERS = "ABCDEFGHI";

const by = (id) => document.getElementById(id);
// The label of a name that comes from the data, or the name itself.
const labelled = (group, name) => page.labels[`${group}.${name}`]?.[document.documentElement.lang] ??
  TEXTS[`${group}.${name}`]?.[document.documentElement.lang] ?? name;

async function ask(path, values = {}, body = null) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(`${path}?${new URLSearchParams(given)}`, options || {});
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error?.message ?? reply.statusText);
  return content;
}

let queue = Promise.resolve();
// Run a task after all earlier ones; its error is shown.
function inOrder(task) {
  queue = queue.then(task).catch(complain);
  return queue;
}

const why = (error) => (error instanceof TypeError ? w("no_server") : error.message);  // of fetch without an answer

function complain(error) {
  if (!(error instanceof Unsaved)) notice("error", w("failed", { why: why(error) }));
}

const notices = new Map();
function notice(key, text) {
  if (text === null) notices.delete(key);
  else notices.set(key, text);
  by("notices").replaceChildren(...[...notices].map(([, said]) => h("p", null, said)));
}

// The address keeps the filters and the row, so that a reload comes back to them.
function remember() {
  const values = QUERY.map((name) => [name, state.query[name]]).concat([["row", state.row?.number], ["view", state.view]]);
  history.replaceState(null, "", `#${new URLSearchParams(values.filter(([, value]) => value !== "" && value != null))}`);
}

function recall() {
  const values = new URLSearchParams(location.hash.slice(1));
  state.query = Object.fromEntries(QUERY.filter((name) => values.get(name)).map((name) => [name, values.get(name)]));
  state.view = values.get("view") === "single" ? "single" : values.get("view") === "list" ? "list" : "split";
  return values.has("row") ? Number(values.get("row")) : null;
}

// Select anew by the filters, and stay at a row where it is still selected.
async function select(row) {
  const found = await ask("/api/select", { ...state.query, row });
  state.version = found.version;
  state.total = found.total;
  clearList();
  return found.position;
}

// Show the row at a position of the selection.
async function show(position) {
  state.editing = false;
  if (!state.total) {
    state.row = null;
    drawAllParts();
    return;
  }
  state.position = Math.max(0, Math.min(position, state.total - 1));
  const number = await numberAt(state.position);
  state.row = number === undefined ? null : await ask("/api/row", { row: number });
  remember();
  reveal(state.position);
  drawAllParts();
  by("row").scrollTop = 0;
}

// Store a decision on the row that is shown; what is not given stays as it was.
async function decide(changes) {
  const row = state.row, mine = row.mine ?? { verdict: null, edit: {}, comment: "" };
  const { verdict, edit, comment } = { ...mine, ...changes };
  try {
    state.row = await ask("/api/decide", {}, { row: row.number, key: row.key, verdict, edit, comment });
    notice("error", null);
  } catch (error) {
    notice("error", w("not_saved", { why: why(error) }));
    throw new Unsaved();
  }
  updateItem(state.row);
  by("said").textContent = w("said", { n: number(row.number + 1), verdict: verdictText(state.row) });
  refreshSoon();
}
class Unsaved extends Error {}

// A verdict in words; answers are named by the letters under which they are shown.
function verdictText(row, verdict = row.mine?.verdict) {
  if (verdict == null) return w("verdict.none");
  if (["keep", "drop", "tie"].includes(verdict)) return w(`verdict.${verdict}`);
  const place = row.answers?.findIndex((answer) => answer.choice === verdict) ?? -1;
  return w("verdict.choice", { letter: place < 0 ? verdict : LETTERS[place] });
}
