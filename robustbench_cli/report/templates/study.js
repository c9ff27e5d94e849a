"use strict";
// Tables: a click on a head sorts by its column; what has no number stays at the end.
const key = (row, at) => row.cells[at]?.dataset.key ?? "";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, at) => head.querySelector("button").addEventListener("click", () => {
    const numeric = head.classList.contains("right");
    const now = head.getAttribute("aria-sort");
    const up = now ? now === "descending" : !numeric;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].sort((a, b) => {
      const [one, two] = [key(a, at), key(b, at)];
      if (!one || !two) return Number(!one) - Number(!two);
      const order = numeric ? Number(one) - Number(two) : one.localeCompare(two);
      return up ? order : -order;
    });
    body.append(...rows);
  }));
}
// The gallery: only images of the chosen class, and of the chosen run.
const filters = [...document.querySelectorAll(".filters select")];
const cards = [...document.querySelectorAll(".fallen")];
const count = document.querySelector("#shown");
const show = () => {
  for (const card of cards) {
    card.hidden = filters.some((one) => one.value && card.dataset[one.name] !== one.value);
  }
  if (count) count.textContent = cards.filter((card) => !card.hidden).length;
};
filters.forEach((one) => one.addEventListener("change", show));
show();
