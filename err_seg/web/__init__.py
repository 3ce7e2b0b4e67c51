"""A web page: upload or draw an image, name classes, see the labels. Needs Gradio (``pip install 'err_seg[web]'``)."""

from err_seg.web.page import build_page
from err_seg.web.server import create_app, serve

__all__ = ["build_page", "create_app", "serve"]
