"use strict";
// The sample browser: filter, sort and page over the data in the page. Texts reach the page as text nodes only.
(() => {
  const holder = document.getElementById("samples-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const get = (id) => document.getElementById(id);
  const list = get("samples-list");
  const controls = ["samples-text", "samples-arm", "samples-flag", "samples-order", "samples-metric", "samples-kind"];
  const [text, arm, flag, order, metric, kind] = controls.map(get);

  const samples = data.samples.map((sample, position) => {
    const written = new Map(sample.outputs.filter((o) => typeof o[1] === "string").map((o) => [o[0], o[1]]));
    const outputs = sample.outputs.map(([index, value, terminated, flags, metrics]) => ({
      index, terminated: terminated === 1, flags, metrics,
      text: typeof value === "string" ? value : written.get(value),
      sameAs: typeof value === "string" ? -1 : value,
    }));
    const words = [sample.id, sample.source, ...sample.references, ...outputs.map((o) => o.text)];
    return { ...sample, outputs, position, haystack: words.join("\n").toLowerCase() };
  });

  const element = (tag, className, content) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (content !== undefined) made.textContent = content;
    return made;
  };

  const hasFlag = (output, wanted) => {
    if (wanted === "any") return output.flags.length > 0 || !output.terminated;
    if (wanted === "none") return output.flags.length === 0 && output.terminated;
    if (wanted === "unterminated") return !output.terminated;
    return output.flags.includes(Number(wanted));
  };

  const matchesFlag = (sample) => {
    if (flag.value === "") return true;
    const outputs = arm.value === "" ? sample.outputs : sample.outputs.filter((o) => o.index === Number(arm.value));
    const test = (output) => hasFlag(output, flag.value);
    return outputs.length > 0 && (flag.value === "none" ? outputs.every(test) : outputs.some(test));
  };

  const metricOf = (sample, name, index) => {
    const output = sample.outputs.find((o) => data.arms[o.index] === name);
    return output ? output.metrics[index] : null;
  };

  const gain = (sample) => {
    const index = Number(metric.value);
    const after = metricOf(sample, `rl/${kind.value}`, index);
    const before = metricOf(sample, `sft/${kind.value}`, index);
    if (after === null || before === null || after === undefined || before === undefined) return null;
    return data.directions[index] === false ? before - after : after - before;
  };

  const select = () => {
    const wanted = text.value.trim().toLowerCase();
    const found = samples.filter((s) => (wanted === "" || s.haystack.includes(wanted)) && matchesFlag(s));
    if (order.value === "file") return found;
    const sign = order.value === "gain" ? -1 : 1;
    const keyed = found.map((sample) => ({ sample, key: gain(sample) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.sample.position - b.sample.position;
      return sign * (a.key - b.key) || a.sample.position - b.sample.position;
    });
    return keyed.map((pair) => pair.sample);
  };

  const shownMetrics = () => {
    const shown = [...data.shown];
    const sorted = Number(metric.value);
    if (order.value !== "file" && !shown.includes(sorted)) shown.push(sorted);
    return shown;
  };

  const outputItem = (output) => {
    const item = element("li");
    item.append(element("span", "arm", data.arms[output.index]));
    if (!output.terminated) item.append(element("span", "chip", "no terminator"), " ");
    for (const index of output.flags) item.append(element("span", "chip", data.modes[index]), " ");
    const values = shownMetrics().filter((i) => output.metrics[i] !== null).map((i) => `${data.metrics[i]} ${output.metrics[i].toFixed(3)}`);
    item.append(element("span", "values", values.join(" · ")));
    const same = output.sameAs >= 0;
    item.append(element("p", same ? "text same" : "text", same ? `same as ${data.arms[output.sameAs]}` : output.text || "(empty)"));
    return item;
  };

  const card = (sample) => {
    const article = element("article");
    const heading = element("h3", "", sample.id);
    const difference = order.value === "file" ? null : gain(sample);
    if (difference !== null) {
      const sign = difference < 0 ? "−" : "+";
      heading.append(element("span", "values", `RL gain on ${data.metrics[Number(metric.value)]}: ${sign}${Math.abs(difference).toFixed(3)}`));
    }
    const source = element("p", "source", sample.source);
    source.tabIndex = 0;
    if (sample.cut > 0) source.append(element("small", "", ` … ${sample.cut} more characters in evaluation/samples.jsonl`));
    const outputs = element("ul", "outputs");
    for (const reference of sample.references) {
      const item = element("li");
      item.append(element("span", "arm", "reference"), element("p", "text", reference));
      outputs.append(item);
    }
    outputs.append(...sample.outputs.map(outputItem));
    article.append(heading, source, outputs);
    return article;
  };

  let page = 0;
  const show = () => {
    const found = select();
    const pages = Math.max(1, Math.ceil(found.length / data.pageSize));
    page = Math.min(Math.max(page, 0), pages - 1);
    const from = page * data.pageSize;
    const part = found.slice(from, from + data.pageSize);
    list.replaceChildren(...part.map(card));
    const status = found.length === 0 ? "No sample matches." : `${from + 1}–${from + part.length} of ${found.length} samples`;
    for (const name of ["top", "bottom"]) {
      get(`samples-status-${name}`).textContent = status;
      get(`samples-previous-${name}`).disabled = page === 0;
      get(`samples-next-${name}`).disabled = page === pages - 1;
    }
  };

  const turn = (by, focusTop) => {
    page += by;
    show();
    if (focusTop) get("samples").scrollIntoView();
  };
  for (const name of ["top", "bottom"]) {
    get(`samples-previous-${name}`).addEventListener("click", () => turn(-1, name === "bottom"));
    get(`samples-next-${name}`).addEventListener("click", () => turn(1, name === "bottom"));
  }
  for (const control of [text, arm, flag, order, metric, kind]) {
    control.addEventListener("input", () => { page = 0; show(); });
  }
  for (const hidden of document.querySelectorAll("[data-needs-script]")) hidden.hidden = false;
  for (const fallback of document.querySelectorAll("[data-without-script]")) fallback.hidden = true;
  show();
})();
