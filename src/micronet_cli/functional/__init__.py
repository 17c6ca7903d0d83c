"""Pure maths: tensors or numbers in and out, no modules, no configs."""
