// The dialogs: keys, and the reviewers' progress and agreement.
const KEYS = [["a", "keep"], ["d", "drop"], ["1 2 …", "choose"], ["0", "tie"], ["j k ↓ ↑", "move"], ["n", "next"], ["e", "edit"], ["c", "comment"],
  ["u", "undo"], ["/", "search"], ["l", "list"], ["s", "agreement"], ["?", "help"]];

const closing = (dialog) => h("button", { type: "button", onclick: () => dialog.close() }, w("close"), h("kbd", null, "Esc"));

function drawKeys() {
  const dialog = by("keys");
  dialog.replaceChildren(h("div.body", null, h("h2", null, w("keys")),
    h("dl.keys", null, KEYS.map(([keys, name]) => [h("dt", null, keys.split(" ").map((key) => h("kbd", null, key))), h("dd", null, w(`key.${name}`))])), closing(dialog)));
}

function drawAgreement() {
  const dialog = by("agreement"), summary = state.summary;
  if (!summary) return;
  const raters = (name) => (name === "judge" ? w("judge") : name === summary.reviewer ? `${name} (${w("you")})` : name);
  const chosen = (verdicts) => Object.entries(verdicts).reduce((total, [verdict, n]) => total + (/^\d/.test(verdict) ? n : 0), 0);
  const cells = (values) => values.map((value) => h("td.n", null, value));
  const head = (names) => h("thead", null, h("tr", null, names.map((name, at) => h(at ? "th.n" : "th", { scope: "col" }, name))));
  dialog.replaceChildren(h("div.body", null, h("h2", null, w("reviewers")),
    h("div.scroller", null, h("table.wide", null, head([w("reviewer"), w("decided"), w("keep"), w("drop"), w("chosen"), w("tie"), w("status.edited")]),
      h("tbody", null, summary.reviewers.map((one) => h("tr", null, h("th", { scope: "row" }, raters(one.name)),
        cells([one.decided, one.verdicts.keep ?? 0, one.verdicts.drop ?? 0, chosen(one.verdicts), one.verdicts.tie ?? 0, one.edited].map((n) => number(n)))))))),
    h("h2", null, w("agreement")),
    summary.agreement.length ? [h("div.scroller", null, h("table.wide", null, head([w("pair"), w("both"), w("agreed"), w("kappa")]),
      h("tbody", null, summary.agreement.map((one) => h("tr", null, h("th", { scope: "row" }, `${raters(one.first)} · ${raters(one.second)}`),
        cells([number(one.rows), `${number((100 * one.agreed) / one.rows, 1)}%`, one.kappa === null ? "—" : number(one.kappa, 2)])))))),
      h("p.soft", null, w("kappa_explained"))] : h("p.soft", null, w("nobody")),
    h("div.controls", null, summary.disagreed > 0 && h("button", { type: "button", onclick: () => { dialog.close(); apply({ status: "disagreed" }); } }, w("show_disagreed", { n: number(summary.disagreed) })), closing(dialog))));
}

async function openAgreement() {
  drawAgreement();
  by("agreement").showModal();  // at once, so that Esc closes it however slow the server is
  await refresh();
  drawAgreement();
}

function openKeys() {
  drawKeys();
  by("keys").showModal();
}
