"""Tree search over tokens and simulators."""
