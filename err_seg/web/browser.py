"""What the page does in the browser, without the server."""

RESULT, SAMPLES = "result", "samples"
# until there are links to its files, there is no result
STYLE = f"#{RESULT}:not(:has(a[download])) > :not(:first-child) {{ display: none !important }}"
# leaving the list of vocabularies chooses nothing
CHOOSE = "(name, names) => [name ?? names, null]"
SHOW = f"""(...values) => {{
  const result = document.querySelector("#{RESULT}");
  if (values.length) [values[3], values[4]] = [values[3] ?? 0, Math.round(values[4]) || 1]; // numbers as typed
  (result.querySelector("img") ?? result).scrollIntoView({{ behavior: "smooth", block: "nearest" }});
  return values;
}}"""
# the overlay with colours of this strength, to see and to download; the links say which it has now
REDRAW = """async (pair, links, percent) => {
  await new Promise(done => setTimeout(done, 200));
  const [, key, now] = links?.match(/(results\\/\\w+)\\/overlay\\/(\\d+)/) ?? [];
  percent = Math.min(100, Math.max(0, Math.round(percent ?? now)));
  if (!key || now == percent) return [pair, links];
  const drawn = { path: "overlay.jpg", url: `${key}/video/${percent}`, meta: { _type: "gradio.FileData" } };
  return [[pair[0], drawn], links.replace(`overlay/${now}`, `overlay/${percent}`)];
}"""
KEEP = """(...values) => {
  if (window.isRestored) sessionStorage.setItem("page", JSON.stringify(values));
}"""
# values of before a reload: the image and settings, then the result; without those whose files are gone, and none that
# another version of the page has kept
RESTORE = f"""async (...values) => {{
  const samples = document.querySelector("#{SAMPLES}"), num_settings = 11;
  const name = () => samples.querySelectorAll("img").forEach((image, index) =>
    image.alt = `sample ${{index + 1}}: ${{decodeURI(image.src).split("/").pop()}}`);
  if (samples) new MutationObserver(name).observe(samples, {{ childList: true, subtree: true }}), name();
  const stored = JSON.parse(sessionStorage.getItem("page"));
  const kept = stored?.length == values.length ? stored : values, pair = kept[num_settings + 1] ?? [];
  const isGone = async file => file && !(await fetch(file.url, {{ method: "HEAD" }})).ok;
  for (const place of [0, 8, 9]) if (await isGone(kept[place])) kept[place] = null;
  if (await isGone(pair[0]) || await isGone(pair[1])) kept.splice(num_settings, 99, ...values.slice(num_settings));
  setTimeout(() => window.isRestored = true);
  return kept;
}}"""
