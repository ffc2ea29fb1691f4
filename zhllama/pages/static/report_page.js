const data = JSON.parse(document.getElementById("data").textContent);
const models = openModels(data.models);
state.text = data.sentences[0].text;

const PARTS = {
  overview: () => overview(data), charts: () => charts(data, draw), viewer: () => viewer(data, models),
  lengths: () => lengths(data, draw), pieces: () => (data.added.length ? pieces(data, models, draw) : null), notes: () => notes(),
};

function notes() {
  const terms = Object.keys(TEXTS).filter((key) => key.startsWith("term."));
  return section("notes", w("notes"), h("dl", null, terms.map((key) => [h("dt", null, w(key)), h("dd", null, w(key.replace("term", "definition")))])), h("p.soft", null, w("notes_explained")));
}

// Redraw one part; the control that had the focus gets it back.
function draw(part) {
  const old = document.getElementById(part), controls = [...old.querySelectorAll("select,input")], at = controls.indexOf(document.activeElement);
  const redrawn = PARTS[part]();
  old.replaceWith(redrawn);
  if (at >= 0) redrawn.querySelectorAll("select,input")[at]?.focus();
}

function drawAll() {
  document.title = `${w("title")} · zhllama`;
  document.getElementById("main").replaceChildren(...Object.values(PARTS).map((make) => make()).filter(Boolean));
}

document.documentElement.addEventListener("languagechange", drawAll);
drawAll();
