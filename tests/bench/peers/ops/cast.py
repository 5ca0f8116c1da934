def cast(x, y):
    new = [] if x.dtype == y.dtype else [lambda: x.to(y.dtype)]  # else it is x itself
    return [lambda: y.copy_(x), *new]
