"""The page's layout: what stands where, and which event calls what. What happens then is in `handlers.py`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fss.predictor import FewShotPredictor
from fss.web.examples import EXAMPLES
from fss.web.handlers import VIEWS, Handlers
from fss.web.painting import BRUSH, BRUSH_SIZE, MEANINGS
from fss.web.session import Session

IDLE = 3600  # seconds after which a visitor who does nothing is forgotten
_COLOR = "#{:02x}{:02x}{:02x}".format(*BRUSH)

THEME = gr.themes.Default(
    primary_hue="pink",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "sans-serif"],  # names alone: the theme's own fonts would come from another computer
    font_mono=["ui-monospace", "monospace"],
)
CSS = """
.gradio-container { max-width: 1240px !important; width: 100%; margin: auto !important; }
.gradio-container .main.app { padding: clamp(8px, 2.5vw, 32px) !important; }
.step { border: 1px solid var(--border-color-primary); border-radius: 12px; padding: clamp(8px, 1.5vw, 16px);
  gap: 12px; }
.step h2 { margin: 0; font-size: 1.2rem; }
.gallery { min-height: 0 !important; }
.gallery .grid-wrap { min-height: 0 !important; max-height: 420px !important; overflow-y: auto; }
.gallery .caption-label { max-width: 100% !important; }
#zip, #told [data-testid=status-tracker]:has(.error) { display: none !important; }
"""
# A download starts when its file is ready; this presses the link, which nobody sees
_PRESS = "() => { const a = document.querySelector('#zip'); (a.querySelector('a, button') || a).click(); }"


def build(model: FewShotPredictor) -> gr.Blocks:
    """Lays out the page on top of a loaded model, which stays without supports of its own."""
    handlers = Handlers(model)
    with gr.Blocks(title="Few-shot segmentation", analytics_enabled=False, delete_cache=(IDLE, 24 * IDLE)) as page:
        session = gr.State(Session(), time_to_live=IDLE)
        gr.Markdown(
            "# Few-shot segmentation\nShow a thing in one to five pictures, and find it in others. "
            "Everything stays on this computer."
        )
        with gr.Row():
            trials = [gr.Button(f"Try: {each}", size="sm", min_width=90) for each in EXAMPLES]
            clear = gr.Button("Start over", size="sm", min_width=90, elem_id="clear")
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                with gr.Column(elem_classes="step"):
                    gr.Markdown("## 1 Examples of the thing")
                    offered = _drop_zone("offered")
                    with gr.Column(visible=False) as painter:
                        name = gr.Textbox("object", label="What is it?", max_lines=1, elem_id="name")
                        meaning = gr.Radio(
                            list(MEANINGS),
                            value=MEANINGS[0],
                            label="The paint marks",
                            info="Of a box, two opposite corners are enough. What you paint of a part is grown.",
                            elem_id="meaning",
                        )
                        to_paint = gr.Markdown()
                        editor = gr.ImageEditor(
                            type="numpy",
                            format="png",
                            sources=(),
                            transforms=(),
                            layers=False,
                            brush=gr.Brush(default_size=BRUSH_SIZE, colors=[_COLOR], color_mode="fixed"),
                            buttons=[],
                            height=400,
                            show_label=False,
                            elem_id="editor",
                        )
                        with gr.Row():
                            skip = gr.Button("Skip this picture", min_width=120, elem_id="skip")
                            add = gr.Button("Add this example", variant="primary", min_width=120, elem_id="add")
                    shown = _gallery("supports", columns=3)
                    remove = gr.Button("Remove this example", visible=False, size="sm", elem_id="remove")
                with gr.Column(elem_classes="step"):
                    gr.Markdown("## 2 Pictures to search")
                    asked = _drop_zone("asked")
                    find = gr.Button("Find it", variant="primary", elem_id="find")
            with gr.Column(scale=6, min_width=320, elem_classes="step"):
                gr.Markdown("## 3 Result")
                told = gr.Markdown(handlers.hint(Session()), elem_id="told")
                results = _gallery("results", columns=3)
                with gr.Column(visible=False) as closer:
                    with gr.Row():
                        threshold = _slider("threshold", model.threshold, "Least score of a pixel")
                        presence = _slider("presence", model.presence_threshold, "Least presence in a picture")
                    view = gr.Radio(VIEWS[:1], value=VIEWS[0], show_label=False, elem_id="view")
                    of = gr.Dropdown([], label="Of", visible=False, elem_id="of")
                    picture = gr.Image(
                        interactive=False,
                        format="png",
                        buttons=["fullscreen"],
                        show_label=False,
                        elem_id="picture",
                    )
                    why = gr.HTML(padding=False, elem_id="why")
                    resembled = gr.Image(
                        interactive=False,
                        visible=False,
                        buttons=[],
                        format="jpeg",
                        show_label=False,
                        elem_id="resembled",
                    )
                    save = gr.Button("Download masks, overlays and COCO json", elem_id="save")
                    archive = gr.DownloadButton(elem_id="zip")

        # One network and one processor: what uses them waits for its turn
        turn: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1, "api_visibility": "private"}
        # How far it is, and that it failed, would lie over what is painted or looked at: short events show nothing
        quick, slow = {**turn, "show_progress": "hidden"}, {**turn, "show_progress_on": told}
        step1 = [painter, to_paint, editor, shown, remove]
        step3 = [told, results, closer, view, of, picture, why, resembled]
        look = [picture, why, resembled]
        offered.upload(handlers.offer, [session, offered], [offered, *step1], **quick)
        add.click(handlers.add, [session, name, editor, meaning], [*step1, *step3], **quick)
        skip.click(handlers.skip, [session], step1, **quick)
        shown.select(handlers.choose_support, [session], [remove], **quick)
        remove.click(handlers.remove, [session], [*step1, *step3], **quick)
        asked.upload(handlers.ask, [session, asked], [asked, *step3], **quick)
        find.click(handlers.find, [session], step3, **slow)
        clear.click(handlers.clear, [session], [*step1, *step3, threshold, presence], **quick)
        for trial, each in zip(trials, EXAMPLES, strict=True):
            trial.click(handlers.trial(each), [session], [*step1, *step3, threshold, presence], **slow)
        threshold.release(handlers.set_threshold, [session, threshold, view, of], [told, results, *look], **quick)
        presence.release(handlers.set_presence, [session, presence, view, of], [told, results, *look], **quick)
        results.select(handlers.choose_result, [session, view, of], look, **quick)
        view.input(handlers.look, [session, view, of], look, **quick)
        of.input(handlers.look, [session, view, of], look, **quick)
        picture.select(handlers.resemble, [session, view, of], look, **quick)
        save.click(handlers.save, [session], [archive], **slow).success(None, js=_PRESS)
    return page


def _drop_zone(name: str) -> gr.File:
    """Where pictures are dropped; a telephone offers its photographs and its camera."""
    return gr.File(file_count="multiple", file_types=["image"], height=130, show_label=False, elem_id=name)


def _slider(name: str, value: float, label: str) -> gr.Slider:
    """A share to choose."""
    return gr.Slider(0, 1, value=value, step=0.01, label=label, min_width=200, buttons=[], elem_id=name)


def _gallery(name: str, columns: int) -> gr.Gallery:
    """Pictures to choose from, hidden while there are none."""
    return gr.Gallery(
        visible=False,
        columns=columns,
        fit_columns=False,
        height="auto",
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        format="jpeg",
        show_label=False,
        elem_id=name,
        elem_classes="gallery",
    )
