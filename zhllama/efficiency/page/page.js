const data = JSON.parse(document.getElementById("data").textContent);
const models = openModels(data.models);
state.text = data.sentences[0].text;

const PARTS = {
  overview: () => overview(data), charts: () => charts(data, draw), viewer: () => viewer(data, models),
  lengths: () => lengths(data, draw), pieces: () => (data.added.length ? pieces(data, models, draw) : null), notes: () => notes(),
};

function notes() {
  const w = words();
  return section("notes", w.notes, h("dl", null, w.definitions.map(([name, text]) => [h("dt", null, name), h("dd", null, text)])), h("p.soft", null, w.notesTold));
}

// Draw one part anew; the control that had the focus gets it back.
function draw(part) {
  const old = document.getElementById(part), controls = [...old.querySelectorAll("select,input")], at = controls.indexOf(document.activeElement);
  const made = PARTS[part]();
  old.replaceWith(made);
  if (at >= 0) made.querySelectorAll("select,input")[at]?.focus();
}

function drawAll() {
  const w = words(), parts = Object.entries(PARTS).map(([name, make]) => [name, make()]).filter(([, made]) => made);
  document.documentElement.lang = state.language === "zh" ? "zh-Hans" : "en";
  document.title = `${w.title} · zhllama`;
  document.getElementById("main").replaceChildren(...parts.map(([, made]) => made));
  document.getElementById("nav").replaceChildren(...parts.map(([name]) => h("a", { href: `#${name}` }, w[name])));
  document.getElementById("footer").textContent = w.footer;
  document.querySelector(".skip").textContent = w.skip;
  const language = document.getElementById("language");
  language.textContent = w.language;
  language.setAttribute("aria-label", w.languageLabel);
  language.lang = state.language === "zh" ? "en" : "zh-Hans";
  drawTheme();
}

const system = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (state.theme ? state.theme === "dark" : system.matches);

function drawTheme() {
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
  const theme = document.getElementById("theme");
  theme.textContent = dark() ? words().light : words().dark;
  theme.setAttribute("aria-label", words().themeLabel);
}

// A page opened from disk may have no storage.
const kept = {
  get: (key) => { try { return localStorage.getItem(`zhllama.${key}`); } catch { return null; } },
  set: (key, value) => { try { localStorage.setItem(`zhllama.${key}`, value); } catch { /* not kept, then */ } },
};

state.language = kept.get("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
state.theme = kept.get("theme");
document.getElementById("language").addEventListener("click", () => { kept.set("language", (state.language = state.language === "zh" ? "en" : "zh")); drawAll(); });
document.getElementById("theme").addEventListener("click", () => { kept.set("theme", (state.theme = dark() ? "light" : "dark")); drawTheme(); });
system.addEventListener("change", drawTheme);
drawAll();
