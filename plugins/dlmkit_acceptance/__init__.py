"""A model beside exact n-gram models of its own text: is it worth shipping?"""
