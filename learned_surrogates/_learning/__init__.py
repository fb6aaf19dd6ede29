"""What both ways of learning share: replay, random weights, processes, figures over the calls."""
