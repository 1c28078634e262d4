// Tables sort by a click on a heading, or by Enter and Space on it. Without this script they are plain tables.
(() => {
  "use strict";
  const said = document.getElementById("said");

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, key: row.cells[column].dataset.key }));
    const numeric = rows.every(({ key }) => key === undefined || key === "" || !Number.isNaN(Number(key)));
    rows.sort((a, b) => {
      const missing = (a.key === undefined) - (b.key === undefined);
      if (missing || a.key === undefined) return missing || a.place - b.place;
      const order = numeric ? Number(a.key) - Number(b.key) : a.key.localeCompare(b.key);
      return (descending ? -order : order) || a.place - b.place;
    });
    body.append(...rows.map(({ row }) => row));
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const descending = before ? before === "ascending" : head.classList.contains("num");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
        said.textContent = `Sorted by ${button.textContent.trim()}, ${descending ? "from the largest" : "from the smallest"}.`;
      });
    });
  }
  document.documentElement.classList.add("scripted");
})();
