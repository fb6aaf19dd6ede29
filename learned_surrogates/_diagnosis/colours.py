"""Okabe and Ito's colours, which differ for colour-blind readers too."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
