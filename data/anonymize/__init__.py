"""Texts, tables and pictures without what tells who somebody is."""
