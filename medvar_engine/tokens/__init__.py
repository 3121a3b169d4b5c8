"""Token maps of one image: their schedule of scales, the pyramid, and codes that are alike."""
