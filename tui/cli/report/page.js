for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg"), out = figure.querySelector("output"), pointer = figure.querySelector(".pointer");
  const data = JSON.parse(figure.querySelector("script").textContent), legend = [...out.childNodes];
  const [first, last, left, right] = data.x;
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (low < high) { const middle = (low + high) >> 1; if (xs[middle] < x) low = middle + 1; else high = middle; }
    return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
  };
  // A line has no value after its end, nor before its first point, which may stand for the steps up to it.
  const has = (xs, x) => x >= xs[0] - (xs.length > 1 ? xs[1] - xs[0] : 1) && x <= xs[xs.length - 1];
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const step = Math.min(last, Math.max(first, first + ((at - left) / (right - left)) * (last - first)));
    pointer.setAttribute("x1", Math.min(right, Math.max(left, at)));
    pointer.setAttribute("x2", Math.min(right, Math.max(left, at)));
    pointer.style.visibility = "visible";
    out.replaceChildren(`step ${Math.round(step).toLocaleString("en")} `);
    for (const line of data.lines) {
      const one = document.createElement("span");
      one.className = `c${line.c}`;
      const value = has(line.x, Math.round(step)) ? line.y[nearest(line.x, step)] : "–";
      one.textContent = ` ${line.n} ${value}`;
      out.append(one);
    }
  });
  svg.addEventListener("pointerleave", () => { pointer.style.visibility = "hidden"; out.replaceChildren(...legend); });
}
