"""The annotation studio: what an instrument does to labels, to agreement and to the models trained on them."""
