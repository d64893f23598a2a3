"""What a fixation becomes before it is a token: the image under its box, and kinematics."""
