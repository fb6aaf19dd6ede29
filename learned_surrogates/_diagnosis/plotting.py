"""What pictures are made with, and their colours."""

try:
    import matplotlib as matplotlib
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
except ImportError as error:
    # Not within the `raise`, whose line a traceback shows above its message.
    missing = "pictures need matplotlib: pip install matplotlib"
    raise ImportError(missing) from error

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
