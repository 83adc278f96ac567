"""A page in the browser on top of `fss.predictor`: show examples of a thing, find it in pictures, see why."""
