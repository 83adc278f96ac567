"""Serves the page to this computer, and nothing else to anybody."""

from __future__ import annotations

import os
import signal
import tempfile

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fss.predictor import FewShotPredictor
from fss.web.port import ADDRESS

# A page of another site that names itself after this address (DNS rebinding) gets no answer
_NAMES = [ADDRESS, "localhost"]
# The browser fetches everything from here; what a library's page would load from elsewhere stays away
_POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'none'"
)
_MOST_BYTES = "100mb"  # of an uploaded file
_MOST_VISITORS = 50  # whose supports and answers are kept; the oldest go first


class OwnSourcesOnly:
    """Middleware that adds the content security policy to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def serve(model: FewShotPredictor, port: int) -> None:
    """Serves the page until Ctrl-C or SIGTERM. Uploads and downloads live in a folder of its own, which then goes.

    Args:
        model: A predictor without supports.
        port: Number of a free port, on this computer's own address.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder goes then too
    with tempfile.TemporaryDirectory(prefix="fss-web-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        tempfile.tempdir = folder
        from fss.web.page import CSS, THEME, build  # brings Gradio, which reads the environment

        page = build(model)
        page.launch(
            server_name=ADDRESS,
            server_port=port,
            share=False,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            root_path="",
            allowed_paths=[],
            blocked_paths=[],
            footer_links=[],
            max_file_size=_MOST_BYTES,
            state_session_capacity=_MOST_VISITORS,
            theme=THEME,
            css=CSS,
            app_kwargs={
                "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES), Middleware(OwnSourcesOnly)]
            },
            prevent_thread_lock=True,
        )
        print(f"The page is at http://{ADDRESS}:{port}, for this computer alone. Ctrl-C ends it.", flush=True)
        page.block_thread()
