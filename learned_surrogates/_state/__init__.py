"""What `state_dict()` holds: tensors, packed as one, with what they were fitted to."""
