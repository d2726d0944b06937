// A click on a heading sorts its table, the next one the other way round: numbers as numbers, the largest first, words by the
// alphabet, and what is neither ("-") last. Rows of the foot stay where they are.
addEventListener("DOMContentLoaded", () => {
  const number = (text) => parseFloat(text.replaceAll(",", ""));
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (!isNaN(x) && !isNaN(y)) return x - y;
    return isNaN(x) && isNaN(y) ? a.localeCompare(b) : 0;
  };
  const rank = (text) => (text === "-" || text === "" ? 2 : isNaN(number(text)) ? 1 : 0);
  const sort = (head) => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const of = (row) => row.cells[column].innerText.trim();
    const rows = [...body.rows], words = rows.every((row) => isNaN(number(of(row))));
    const order = head.ariaSort || (words ? "descending" : "ascending");
    const now = order === "ascending" ? "descending" : "ascending", sign = now === "ascending" ? 1 : -1;
    rows.sort((a, b) => rank(of(a)) - rank(of(b)) || sign * compare(of(a), of(b)));
    for (const own of table.tHead.rows[0].cells) own.removeAttribute("aria-sort");
    head.ariaSort = now;
    body.append(...rows);
  };
  for (const head of document.querySelectorAll("thead th")) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.append(button);
  }
});
