"""From briefs to finished ad text: find and load a model, fine-tune it, generate in bulk, choose."""
