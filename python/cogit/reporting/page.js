"use strict";
// Only comforts: tables that sort by a click on a heading, and a filter over the samples.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const key = (row, i) => {
    const cell = row.cells[i];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  heads.forEach((head, i) => {
    if (head.classList.contains("strip")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const empty = (row) => row.cells[i].dataset.v === "";
      const rows = [...body.rows].sort((a, b) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        const [x, y] = [key(a, i), key(b, i)];
        const order = typeof x === "string" ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
}
for (const list of document.querySelectorAll(".records")) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const said = document.createElement("span");
  label.className = "filter";
  input.type = "search";
  said.setAttribute("role", "status");
  label.append("Show prompts and texts with ", input, said);
  list.before(label);
  const parts = [...list.querySelectorAll("details")];
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    let n = 0;
    for (const part of parts) {
      part.hidden = !part.textContent.toLowerCase().includes(wanted);
      n += part.hidden ? 0 : 1;
    }
    said.textContent = wanted ? `${n} of ${parts.length}` : "";
  });
}
