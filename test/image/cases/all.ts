/** All cases. */

import type { ImageCase } from '../../helpers/image-cases.ts';
import { compressionCases, documentCases } from './documents.ts';
import { links } from './links.ts';
import { sparseCases, tarCases } from './tar.ts';
import { types } from './types.ts';
import { whiteouts } from './whiteouts.ts';

export const imageCases: readonly ImageCase[] = [
  ...documentCases,
  ...compressionCases,
  ...whiteouts,
  ...types,
  ...links,
  ...tarCases,
  ...sparseCases,
]; // prettier-ignore
