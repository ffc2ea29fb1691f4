// One row with its texts, the reviewers' decisions and the buttons. Texts from the data are only ever text nodes.
function drawRow() {
  const row = state.row;
  by("row").replaceChildren(...(row ? [rowHead(row), ...rowBody(row)] : [h("p.soft.empty", null, state.summary ? w("nothing") : "…")]), row ? actions(row) : "");
}

function rowHead(row) {
  const verdict = row.mine?.verdict ?? "none";
  return h("header.row-head", null,
    h("div.line", null, h("b", null, w("row", { n: number(state.position + 1), all: number(state.total) })),
      h(`span.verdict.${/\d/.test(verdict) ? "choice" : verdict}`, null, verdictText(row)),
      row.group === "rejected" && h("span.tag", null, w("group.rejected")),
      row.flags.filter((flag) => flag !== "cannot be read").map((flag) => h("span.tag.warn", null, labelled("flag", flag))),
      row.category && h("span.tag", null, labelled("kind", row.category)), row.model && h("span.tag", null, row.model),
      h("span.soft", null, w("characters", { n: number(row.characters) }))),
    h("div.soft.where", { title: w("place") }, row.where),
    row.reason && h("p.note", null, w("rejected_because", { reason: labelled("reason", row.reason) }), row.detail && ` · ${row.detail}`),
    row.fault && h("p.note.bad", null, row.kind === "broken" ? w("broken", { why: row.fault }) : w("fault", { why: row.fault })),
    row.near && h("button.link", { type: "button", onclick: () => jump(row.near.row) }, w("similar", { n: number(row.near.row + 1), score: row.near.score })));
}

function rowBody(row) {
  const parts = row.parts.map((part) => partOf(row, part)), fields = Object.entries(row.fields);
  return [
    h("div.parts", null, parts),
    row.answers.length > 0 && h("div.answers", null, row.answers.map((answer, place) => answerOf(row, answer, place))),
    row.answers.length > 0 && row.own === "tie" && h("p.soft", null, w("judged_tie")),
    fields.length > 0 && h("details", null, h("summary", null, w("other_fields")),
      h("dl.fields", null, fields.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]))),
    h("label.field.block", null, h("span", null, w("comment")),
      h("input", { id: "comment", type: "text", maxlength: "10000", value: row.mine?.comment ?? "", placeholder: w("comment_hint"), autocomplete: "off", onkeydown: commentKey, onchange: saveComment })),
    row.others.length > 0 && h("section.others", null, h("h3", null, w("others")), row.others.map((other) => otherOf(row, other))),
    row.hidden > 0 && !row.others.length && h("p.soft", null, w("others_hidden", { n: row.hidden })),
  ].filter(Boolean);
}

const nameOf = (name) => TEXTS[`name.${name}`]?.[document.documentElement.lang] ?? name;

function partOf(row, part) {
  return h(`section.part.${part.name.replace(/\W+/g, "-") || "text"}`, null,
    h("h3", null, nameOf(part.name), h("small", null, w("characters", { n: number(part.characters) })), part.original !== null && h("b.changed", null, w("edited"))),
    textOf(row, part));
}

function textOf(row, part) {
  if (state.editing && part.path) return h("textarea", { "data-path": part.path, "aria-label": nameOf(part.name), oninput: (event) => grow(event.target) }, part.text);
  return [h("div.text", null, marked(part)),
    part.hidden > 0 && h("button", { type: "button", onclick: () => inOrder(() => showWhole(row.number)) }, w("hidden_text", { n: number(part.hidden) })),
    part.original !== null && h("details", null, h("summary", null, w("original")), h("div.text.soft", null, part.original))];
}

async function showWhole(row) {
  state.row = await ask("/api/row", { row, whole: true });
  drawRow();
}

// The text with personal data marked; begin and end count UTF-16 code units, as JavaScript does.
function marked(part) {
  const pieces = [];
  let at = 0;
  for (const [begin, end, kind] of part.marks) {
    pieces.push(found(part.text.slice(at, begin)), h("mark.personal", { title: labelled("flag", kind) }, part.text.slice(begin, end)));
    at = end;
  }
  return [...pieces, found(part.text.slice(at))];
}

function answerOf(row, answer, place) {
  const chosen = row.mine?.verdict === answer.choice, own = row.own === answer.choice;
  return h(chosen ? "section.part.answer-box.chosen" : "section.part.answer-box", null,
    h("h3", null, h("b.letter", null, LETTERS[place]), row.kind === "verdict" && answer.name !== "answer" && answer.name, h("small", null, w("characters", { n: number(answer.characters) })),
      own && h("span.tag", null, w(row.kind === "verdict" ? "judged_better" : "better_in_data")), answer.original !== null && h("b.changed", null, w("edited"))),
    textOf(row, answer));
}

function otherOf(row, other) {
  return h("div.other", null, h("b", null, other.reviewer), h("span.verdict", null, verdictText(row, other.verdict)),
    other.comment && h("span", null, other.comment),
    Object.entries(other.edit).map(([path, text]) => h("details", null, h("summary", null, `${w("edited")} · ${path}`), h("div.text", null, text))));
}

function actions(row) {
  const button = (key, text, act, kind = "") => h(`button${kind}`, { type: "button", onclick: act }, text, key && h("kbd", null, key));
  const judged = row.answers.length > 0;
  if (state.editing)
    return h("div.actions", null, button("Ctrl ⏎", w(judged ? "save_only" : "save"), saveEdit, ".good"), button("Esc", w("cancel"), cancelEdit));
  const editable = row.parts.concat(row.answers).some((part) => part.path);
  return h("div.actions", null,
    button("k", w("previous"), () => step(-1), ".step.back"),
    judged ? row.answers.map((answer, place) => button(String(place + 1), w("better", { letter: LETTERS[place] }), () => judge(answer.choice), ".good"))
      : button("a", w("keep"), () => judge("keep"), ".good"),
    judged && button("0", w("tie"), () => judge("tie")), button("d", w("drop"), () => judge("drop"), ".bad"),
    editable && button("e", w("edit"), startEdit), row.mine?.verdict != null && button("u", w("undo"), undo),
    button("n", w("next_undecided"), nextUndecided, ".wide-only"), button("j", w("next"), () => step(1), ".step.on"));
}

const step = (by) => inOrder(() => show(state.position + by));
const undo = () => inOrder(async () => { if (state.row) { await decide({ verdict: null, edit: {} }); drawRow(); } });

// A verdict, and then the next row.
const judge = (verdict) => inOrder(async () => {
  if (!state.row || state.row.kind === "broken") return;
  const judged = state.row.answers.length > 0;
  if (verdict !== "drop" && judged === (verdict === "keep")) return;  // a key that this row has no use for
  await decide({ verdict });
  if (state.position < state.total - 1) await show(state.position + 1);
  else drawRow();
});

function startEdit() {
  if (!state.row || state.editing) return;
  state.editing = true;
  drawRow();
  const boxes = [...by("row").querySelectorAll("textarea")];
  // What a text box changes by itself, such as \r\n, is no edit.
  boxes.forEach((box) => { grow(box); box.before = box.value; });
  boxes.at(-1)?.focus({ preventScroll: true });
  boxes.at(-1)?.scrollIntoView({ block: "nearest" });
}

function grow(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 4}px`;
}

const saveEdit = () => {
  const boxes = [...by("row").querySelectorAll("textarea")].filter((box) => box.value !== box.before);
  const texts = boxes.map((box) => [box.dataset.path, box.value]);
  return inOrder(async () => {
    const verdict = state.row.answers.length ? state.row.mine?.verdict ?? null : "keep";
    await decide({ verdict, edit: { ...state.row.mine?.edit, ...Object.fromEntries(texts) } });
    state.editing = false;
    drawRow();
  });
};

function cancelEdit() {
  state.editing = false;
  drawRow();
}

function saveComment() {
  const box = by("comment"), row = state.row;
  if (!row || box.value === (row.mine?.comment ?? "")) return;
  const comment = box.value;
  inOrder(async () => { if (state.row === row) { await decide({ comment }); drawRow(); } });
}

function commentKey(event) {
  if (event.isComposing) return;  // Enter ends the input of Chinese characters
  if (event.key === "Enter") { saveComment(); event.target.blur(); }
  if (event.key === "Escape") { event.target.value = state.row.mine?.comment ?? ""; event.target.blur(); }
}

const nextUndecided = () => inOrder(async () => {
  const { position } = await ask("/api/next", { ...state.query, version: state.version, start: state.position });
  if (position === null) by("said").textContent = w("all_decided");
  else await show(position);
});

// Go to a row, without the filters where they leave it out.
const jump = (row) => inOrder(async () => {
  let position = await select(row);
  if ((await numberAt(position)) !== row) {
    state.query = {};
    position = await select(row);
    drawFilters();
  }
  await show(position);
});
