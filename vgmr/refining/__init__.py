"""What the refiner is made of: checks of inputs, maps of one modality, evidence of the calibrated form, chunks."""
