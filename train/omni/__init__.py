"""Learning from images, video and audio beside text: the kinds of data and objectives, and what stands behind them."""
