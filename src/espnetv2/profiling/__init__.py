"""What a network costs: parameters, multiply-adds, receptive field."""
