"""A brush that marks a class on the chosen image. The browser uploads the mask; both then stand beside other images."""

import gradio as gr

from err_seg.web.guard import UPLOAD

CANVAS = "example"
HTML = """
<canvas width="300" height="200" role="img" aria-label="the image, to be marked with mouse, pen or finger"></canvas>
<label>Size of the brush <input type="range" min="2" max="100" value="24"></label>
"""
CSS = "canvas { max-width: 100%; border: 1px solid gray; touch-action: none; cursor: crosshair; }"
# what is marked is kept apart, white on black and of the image's own size
PAINT = """
const canvas = element.querySelector("canvas"), size = element.querySelector("input"), pen = canvas.getContext("2d");
const mask = document.createElement("canvas"), ink = mask.getContext("2d");
canvas.begin = async url => {
  const image = new Image();
  image.src = url;
  await image.decode();
  for (const one of [canvas, mask]) [one.width, one.height] = [image.naturalWidth, image.naturalHeight];
  pen.drawImage(image, 0, 0);
  ink.fillRect(0, 0, mask.width, mask.height);
  for (const [one, color] of [[pen, "#ff00ff80"], [ink, "#ffffff"]])
    Object.assign(one, { fillStyle: color, strokeStyle: color });
  canvas.marked = null;
};
const mark = event => {
  const scale = canvas.width / canvas.clientWidth;
  for (const one of [pen, ink]) {
    one.beginPath();
    one.arc(event.offsetX * scale, event.offsetY * scale, size.value / 2 * scale, 0, 7);
    one.fill();
  }
  canvas.marked = mask;
};
canvas.onpointerdown = event => {
  canvas.setPointerCapture(event.pointerId);
  mark(event);
  canvas.onpointermove = mark;
};
canvas.onpointerup = canvas.onpointercancel = () => { canvas.onpointermove = null; };
"""
BEGIN = f"""async image => {{
  if (image) await document.querySelector("#{CANVAS} canvas").begin(image.url);
  return [image, null];  // what was marked on another image says nothing of this one
}}"""
SEND = f"""async () => {{
  const marked = document.querySelector("#{CANVAS} canvas").marked;
  if (!marked) return alert("Take the image and mark a part of it first."), null;
  const form = new FormData();
  form.append("files", await new Promise(done => marked.toBlob(done)), "mask.png");
  const answer = await fetch("{UPLOAD[1:]}", {{ method: "POST", body: form }});
  const reply = await answer.json(), path = reply[0];
  if (!answer.ok) return alert(reply.detail), null;
  return {{ path, url: "gradio_api/file=" + path, orig_name: "mask.png", meta: {{ _type: "gradio.FileData" }} }};
}}"""


def example_widget(upload: gr.Image) -> list[gr.components.Component]:
    """Lay out the brush; return the class's name, the marked image and its mask, which the browser fills."""
    gr.Markdown("Take the image above, mark the class on it, and use it. Then choose another image, and label that.")
    name = gr.Textbox("", label="Name of the class", info="a label; what it means is what you mark")
    take = gr.Button("Take the image")
    gr.HTML(html_template=HTML, css_template=CSS, js_on_load=PAINT, elem_id=CANVAS)
    use = gr.Button("Use as an example")
    with gr.Row():
        image, mask = (gr.Image(type="filepath", label=label, interactive=False) for label in ("Example", "Its mask"))
    for part in (image, mask):
        part.preprocess = lambda sent: sent and sent.path
    forget = gr.Button("Forget the example")
    take.click(None, upload, [image, mask], js=BEGIN, api_visibility="private")
    use.click(None, None, mask, js=SEND, api_visibility="private")
    forget.click(None, None, [name, image, mask], js='() => ["", null, null]', api_visibility="private")
    return [name, image, mask]
