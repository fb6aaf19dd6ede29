"""Faults in the domain of boxes."""

from .edit import of

EDITS = [
    *of(
        "boxes/_box_task.py",
        "test_boxes_held_wrongly.py",
        ("self.converted(at_least_float32(prediction))", "self.converted(prediction)"),
        (
            "self.converted(at_least_float32(batch.prediction.detach().clone()))",
            "at_least_float32(self.converted(batch.prediction.detach().clone()))",
        ),
    ),
    *of(
        "boxes/_iou.py",
        "test_boxes_iou.py",
        (
            "hull = torch.maximum(spanned(torch.cat([prediction, target], 1)), union)",
            "hull = union",
        ),
        ("union = areas[0] + areas[1] - shared", "union = areas[0] + areas[1]"),
        ("rotate(placed, -rectangle[:, 4:])", "rotate(placed, rectangle[:, 4:])"),
        ("distance.clamp(min=FAR)", "distance.clamp(min=FAR / 40)"),
        ("shared = torch.minimum(shared, torch.minimum(*areas))", "pass"),
        (
            "(hull - union) / torch.where(some, hull, 1.0), 1.0)",
            "(hull - union) / torch.where(some, hull, 1.0), 0.0)",
        ),
        ("torch.promote_types(boxes.dtype, others.dtype)", "boxes.dtype"),
        ("prediction + offset[:, None], target", "prediction, target"),
    ),
    *of(
        "boxes/_overlap.py",
        "test_boxes_iou.py",
        ("polygon + size[:, None] / 2, width", "polygon + size[:, None] / 3, width"),
        ("other[:, [2, 3, 0]]", "other[:, [1, 2, 3]]"),
        ("torch.where(height < 0, -1.0, 1.0)", "torch.where(height < 0, 1.0, 1.0)"),
        ("square().sum(-1).argmax(1)", "square().sum(-1).argmin(1)"),
        (
            "low < 0, high.clamp(min=0).square() / (2 * span)",
            "low < 0, high.clamp(min=0).square() / span",
        ),
        ("(start + end) / 2)", "start)"),
        ("(left <= index) & (index <= right)", "(left < index) & (index < right)"),
        (".sum(1) / 2", ".sum(1)"),
        ("share.clamp(0, 1)", "share.clamp(0, 0.5)"),
        ("length = length * some", "pass", "what has no base has no height either"),
        ("shift - length,", "shift + length,"),
    ),
    *of(
        "boxes/_geometry.py",
        "test_boxes_iou.py test_boxes_tasks.py",
        ("[[-1, -1], [1, -1], [1, 1], [-1, 1]]", "[[-1, -1], [1, 1], [1, -1], [-1, 1]]"),
        ("after - ordered) < 0", "after - ordered) > 0"),
        ("(low + high) / 2, high - low", "(low + high) / 2, low - high"),
        ("torch.where(swap, angle + math.pi / 2, angle)", "angle"),
        ("torch.where(width == height, 0.5, 1.0)", "torch.where(width == height, 1.0, 1.0)"),
        ("sine * x + cosine * y", "cosine * y - sine * x"),
        ("polygons.roll(-1, 1)).sum(1).abs() / 2", "polygons.roll(-1, 1)).sum(1) / 2"),
    ),
]
