// Language and theme of the page: the visitor's choice if one is stored, else what the browser prefers.
(() => {
  const root = document.documentElement, languages = root.dataset.languages.split(" ");
  const system = matchMedia("(prefers-color-scheme: dark)");
  // A page opened from disk may have no storage.
  const stored = {
    get: (key) => { try { return localStorage.getItem(`zhllama.${key}`); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(`zhllama.${key}`, value); } catch { /* not remembered */ } },
  };
  const traditional = /^zh-(hant|tw|hk|mo)/i;
  const preferred = () => {
    for (const language of [stored.get("language"), ...navigator.languages]) {
      if (languages.includes(language)) return language;
      if (traditional.test(language)) return "zh-Hant";
      if (/^zh/i.test(language ?? "")) return "zh-Hans";
      const found = languages.find((known) => known.split("-")[0] === language?.split("-")[0]);
      if (found) return found;
    }
    return "en";
  };
  const drawTheme = () => { root.dataset.theme = stored.get("theme") ?? chosen ?? (system.matches ? "dark" : "light"); };
  let chosen = null;
  root.lang = preferred();
  drawTheme();
  system.addEventListener("change", drawTheme);
  const listen = () => {
    document.getElementById("language").addEventListener("click", () => {
      root.lang = languages[(languages.indexOf(root.lang) + 1) % languages.length];
      stored.set("language", root.lang);
      root.dispatchEvent(new Event("languagechange"));
    });
    document.getElementById("theme").addEventListener("click", () => {
      chosen = root.dataset.theme === "dark" ? "light" : "dark";
      stored.set("theme", chosen);
      drawTheme();
    });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", listen);
  else listen();
})();
