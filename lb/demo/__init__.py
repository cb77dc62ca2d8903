"""What `lb demo` shows: a few greeters behind the balancer."""
