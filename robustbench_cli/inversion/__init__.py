"""Model inversion: rebuilding images from what a model publishes about them.

Zhao, Zhang, Xiao and Lim (2021), https://arxiv.org/abs/2104.12669: an attacker who sees a model's
confidences, and perhaps an explanation of each answer, trains a network that returns the image.
"""
