"""A canvas to draw an image on. The browser uploads the drawing like any other image."""

import gradio as gr

from err_seg.mini.shapes import OBJECT_COLOURS
from err_seg.visualization.colors import hex_color
from err_seg.web.guard import UPLOAD

SIDE = 480
CANVAS = "sketch"
SWATCH = '<button type="button" title="{0}" aria-label="{0}" data-color="{1}" style="background: {1}"></button>'
HTML = f"""
<canvas width="{SIDE}" height="{SIDE}" role="img" aria-label="canvas for the mouse, a pen or a finger"></canvas>
<div>
  {{swatches}}
  <input type="color" title="another colour" aria-label="another colour">
  <label><input type="checkbox" checked> fill outlines</label>
  <button type="button" data-clear>Clear in this colour</button>
</div>
"""
CSS = """
canvas { width: 100%; max-width: 480px; border: 1px solid gray; touch-action: none; cursor: crosshair; }
div { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
button { min-width: 28px; height: 28px; border: 1px solid gray; border-radius: 4px; padding: 0 6px; }
"""
DRAW = """
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
const color = element.querySelector("input[type=color]"), fill = element.querySelector("input[type=checkbox]");
const clear = () => { pen.fillStyle = color.value; pen.fillRect(0, 0, canvas.width, canvas.height); };
const move = event => {
  const scale = canvas.width / canvas.clientWidth;
  pen.lineTo(event.offsetX * scale, event.offsetY * scale);
  pen.stroke();
};
color.value = "#ffffff";
clear();
Object.assign(pen, { lineWidth: 10, lineCap: "round", lineJoin: "round" });
for (const button of element.querySelectorAll("[data-color]"))
  button.onclick = () => { color.value = button.dataset.color; };
color.value = element.querySelector("[data-color]").dataset.color;
element.querySelector("[data-clear]").onclick = clear;
canvas.onpointerdown = event => {
  canvas.setPointerCapture(event.pointerId);
  pen.fillStyle = pen.strokeStyle = color.value;
  pen.beginPath();
  move(event);
  canvas.onpointermove = move;
};
canvas.onpointerup = canvas.onpointercancel = () => {
  if (canvas.onpointermove && fill.checked) pen.fill();
  canvas.onpointermove = null;
};
"""
SEND = f"""async () => {{
  const drawn = await new Promise(done => document.querySelector("#{CANVAS} canvas").toBlob(done));
  const form = new FormData();
  form.append("files", drawn, "drawing.png");
  const answer = await fetch("{UPLOAD[1:]}", {{ method: "POST", body: form }});
  const reply = await answer.json(), path = reply[0];
  if (!answer.ok) return alert(reply.detail), null;
  return {{ path, url: "gradio_api/file=" + path, orig_name: "drawing.png", meta: {{ _type: "gradio.FileData" }} }};
}}"""


def drawing_widget(image: gr.Image) -> None:
    """Lay out the canvas, its colours, and the button that puts the drawing in the place of ``image``."""
    colors = ((name, hex_color(color)) for name, color in (*OBJECT_COLOURS.items(), ("white", (255, 255, 255))))
    swatches = "".join(SWATCH.format(*color) for color in colors)
    gr.HTML(html_template=HTML.format(swatches=swatches), css_template=CSS, js_on_load=DRAW, elem_id=CANVAS)
    gr.Button("Use the drawing").click(None, None, image, js=SEND, api_visibility="private")
