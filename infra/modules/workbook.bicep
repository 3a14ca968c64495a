metadata description = 'The workbook over the findings'

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Resource id of Application Insights.')
param applicationInsightsId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(applicationInsightsId, 'kubelet-guard-workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'AKS kubelet guard'
    category: 'workbook'
    version: 'Notebook/1.0'
    sourceId: applicationInsightsId
    serializedData: replace(loadTextContent('../workbook.json'), 'APPLICATION_INSIGHTS_ID', applicationInsightsId)
  }
}
