"""What should I look at?"""
