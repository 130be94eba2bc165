// What a report's page can do beyond being read: sort and filter tables, show the values of marks, filter the gallery.
// The page is whole without it. Nothing here makes markup out of text.
"use strict";

const FILTER_FROM = 6; // rows from which a table gets a filter
const PAGE = 24; // cards shown at once

// --- tables ---

/** What a cell sorts by: its first number in base units, "≈" as no difference, null for what is not known. */
function sortKey(text, numeric) {
  const value = text.trim();
  if (!numeric) return value.toLowerCase();
  if (value.startsWith("≈")) return value === "≈" ? 1 : 0;
  if (value === "none" || value === "nothing") return 0;
  const found = value.replace(/,/g, "").replace(/−/g, "-").match(/-?\d+(\.\d+)?/);
  if (!found) return null;
  const number = Number(found[0]);
  return / kB\b/.test(value) ? number / 1000 : number;
}

function compareKeys(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" ? a - b : a.localeCompare(b);
}

function sortTable(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const head = heads[column];
  const descending = head.getAttribute("aria-sort") === "ascending";
  const numeric = head.classList.contains("num");
  const keyed = [...table.tBodies[0].rows].map((row) => [sortKey(row.cells[column].textContent, numeric), row]);
  // What is not known stays last, whichever way round.
  keyed.sort(([a], [b]) => (a === null || b === null || !descending ? compareKeys(a, b) : compareKeys(b, a)));
  heads.forEach((cell) => cell.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function filterTable(table, words, output) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  output.textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function enhanceTable(box) {
  const table = box.querySelector("table");
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = element("button", { type: "button" }, ...cell.childNodes);
    button.addEventListener("click", () => sortTable(table, column));
    cell.append(button);
  });
  if (table.tBodies[0].rows.length < FILTER_FROM) return;
  const input = element("input", { type: "search", autocomplete: "off" });
  const output = element("output", { role: "status" });
  input.setAttribute("aria-label", `Show rows of “${box.getAttribute("aria-label")}” with these words`);
  const label = element("label", {}, "Filter rows ", input);
  const controls = element("form", { className: "controls" }, label, output);
  controls.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", () => filterTable(table, input.value, output));
  box.before(controls);
}

// --- charts ---

/** One stop of the tab key for a chart; arrows walk its marks. A mark and its twin in the other panel light up. */
function enhanceChart(figure) {
  const marks = [...figure.querySelectorAll(".mark")];
  const tip = figure.querySelector(".tip");
  if (!marks.length || !tip) return;
  const rest = tip.textContent;
  const row = (mark) => mark.id.replace(/^.*-/, "");
  const show = (mark) => {
    tip.textContent = mark ? mark.getAttribute("aria-label") : rest;
    marks.forEach((other) => other.classList.toggle("twin", mark !== null && row(other) === row(mark)));
  };
  marks.forEach((mark, index) => {
    mark.setAttribute("tabindex", index ? "-1" : "0");
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", () => show(null));
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", () => show(null));
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = marks[(index + step + marks.length) % marks.length];
      mark.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}

// --- gallery ---

/** Row -> cause of a card's captions that are not their references'. */
function differences(card) {
  return new Map(card.dataset.differ.split(" ").filter(Boolean).map((item) => item.split(":")));
}

function enhanceGallery() {
  const controls = document.getElementById("gallery-controls");
  if (!controls) return;
  const [differ, row, words, found] = ["differ", "row", "words", "found"].map((id) => document.getElementById(id));
  const cards = [...document.querySelectorAll(".card")].map((card) => ({
    card, differs: differences(card), text: card.textContent.toLowerCase(),
  }));
  const more = element("button", { type: "button", className: "more" }, "Show more images");
  document.getElementById("cards").after(more);
  let limit = PAGE;

  const matches = ({ differs, text }) => {
    const own = row.value ? [differs.get(row.value)] : [...differs.values()];
    const cause = differ.value.replaceAll(" ", "_");
    const right = !cause || own.some((why) => why !== undefined && (cause === "any" || why === cause));
    return right && text.includes(words.value.trim().toLowerCase());
  };
  const update = () => {
    const right = cards.filter(matches);
    const visible = new Set(right.slice(0, limit));
    cards.forEach((item) => { item.card.hidden = !visible.has(item); });
    found.textContent = `${right.length} of ${cards.length} images` + (visible.size < right.length ? `, ${visible.size} shown` : "");
    more.hidden = visible.size >= right.length;
  };
  const restart = () => { limit = PAGE; update(); };
  controls.hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  [differ, row].forEach((control) => control.addEventListener("change", restart));
  words.addEventListener("input", restart);
  more.addEventListener("click", () => { limit += PAGE; update(); });
  document.getElementById("folder")?.addEventListener("change", (event) => showPictures(cards, event.target.files));
  update();
}

/** Pictures out of a folder on the reader's own disk; they go nowhere. */
function showPictures(cards, files) {
  const byName = new Map([...files].map((file) => [file.name, file]));
  for (const { card } of cards) {
    const file = byName.get(card.dataset.image) ?? byName.get(`${card.dataset.image}.jpg`);
    if (!file || card.querySelector("img")) continue;
    card.prepend(element("img", { src: URL.createObjectURL(file), alt: "", width: 160, loading: "lazy" }));
  }
}

document.querySelectorAll(".table").forEach(enhanceTable);
document.querySelectorAll(".figure").forEach(enhanceChart);
enhanceGallery();
