"""Few-shot segmentation of your own pictures, without a training program.

from fss.predictor import FewShotPredictor

predictor = FewShotPredictor.load("RUN")  # a run folder, a model file, or "match"
predictor.fit(["mug1.jpg", "mug2.jpg"], ["mug1.png", "mug2.png"], name="mug")
predictor.predict("desk.jpg").overlay().show()
"""

from fss.predictor.marks import Box, Points
from fss.predictor.predictor import FewShotPredictor
from fss.predictor.segmentation import Instance, Segmentation

__all__ = ["Box", "FewShotPredictor", "Instance", "Points", "Segmentation"]
